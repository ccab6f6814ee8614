from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Count, QuerySet
from django.http import HttpRequest
from typing_extensions import override

from auth_service.config.admin_site import HeraldModelAdmin, act_on_all, get_admin_caller
from auth_service.groups.actions import (
    GROUP_FIELDS,
    do_change_members,
    do_create_group,
    do_delete_group,
    do_update_group,
)
from auth_service.groups.models import Group, Membership


class MemberInline(admin.TabularInline):  # type: ignore[type-arg] # Django's inlines take no parameter at run time
    """The members; more are added by name."""

    model = Membership
    fields = ("user", "joined_at")
    readonly_fields = ("joined_at",)
    autocomplete_fields = ("user",)
    extra = 0


@admin.register(Group)
class GroupAdmin(HeraldModelAdmin):
    """Groups and who is in them."""

    list_display = ("name", "slug", "tenant", "member_count", "created_at")
    list_filter = ("tenant",)
    search_fields = ("name", "slug")
    fields = ("name", "slug", "description", "tenant")
    inlines = (MemberInline,)

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """With the number of members."""
        counted: QuerySet[Any] = super().get_queryset(request).annotate(count_of_members=Count("memberships"))
        return counted

    @admin.display(description="members", ordering="count_of_members")
    def member_count(self, group: Any) -> int:
        """For the list."""
        return int(group.count_of_members)

    @override
    def save_model(self, request: HttpRequest, obj: Group, form: Any, change: bool) -> None:
        """Through the actions."""
        caller = get_admin_caller(request)
        fields = {name: form.cleaned_data[name] for name in GROUP_FIELDS}
        if change:
            do_update_group(obj, fields, caller.origin)
        else:
            obj.pk = do_create_group(form.cleaned_data["tenant"].slug, fields, caller.origin).pk

    @override
    def save_formset(self, request: HttpRequest, form: Any, formset: Any, change: bool) -> None:
        """Who joined and who left, as one change."""
        formset.save(commit=False)
        joined = [row.user_id for row in formset.new_objects]
        left = [row.user_id for row in formset.deleted_objects]
        if joined or left:
            do_change_members(form.instance, add=joined, remove=left, by=get_admin_caller(request).origin)

    @override
    def delete_model(self, request: HttpRequest, obj: Group) -> None:
        """Through the action."""
        do_delete_group(obj, get_admin_caller(request).origin)

    @override
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Group]) -> None:
        """Each through the action."""
        act_on_all(request, queryset, lambda group: self.delete_model(request, group), "deleted")
