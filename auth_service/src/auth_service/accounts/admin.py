from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from typing_extensions import override

from auth_service.accounts.actions import (
    PROFILE_FIELDS,
    NewUser,
    check_tenant,
    do_create_user,
    do_erase_user,
    do_set_active,
    do_set_roles,
    do_update_user,
)
from auth_service.accounts.mail_actions import do_ask_for_mail
from auth_service.accounts.models import MailKind, User
from auth_service.accounts.names import check_name_and_address, check_username
from auth_service.config.admin_site import HeraldModelAdmin, act_on_all, get_admin_caller
from auth_service.errors import InvalidInput
from auth_service.groups.models import Membership
from auth_service.sessions.actions import do_log_out_everywhere
from auth_service.sessions.models import EndReason, Session
from shared_contracts.scopes import ASSIGNABLE_ROLES


class RoleFilter(admin.SimpleListFilter):
    """By role."""

    title = "role"
    parameter_name = "role"

    @override
    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(role), str(role)) for role in ASSIGNABLE_ROLES]

    @override
    def queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> QuerySet[User]:
        value = self.value()
        return User.objects.all().with_role(value) & queryset if value else queryset


class UserForm(forms.ModelForm):  # type: ignore[type-arg] # Django's forms take no parameter at run time
    """A user, as an administrator edits one."""

    roles = forms.MultipleChoiceField(
        choices=[(str(role), str(role)) for role in ASSIGNABLE_ROLES], widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = User
        fields = ("username", "email", "email_verified", "phone", "locale", "timezone", "external_id", "tenant")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "roles" in self.fields:  # not on the page of someone who may only look
            self.fields["roles"].initial = list(self.instance.roles)
        for name in {"phone", "email", "external_id"} & set(self.fields):
            self.fields[name].required = False

    @override
    def clean(self) -> dict[str, Any]:
        """Check what the columns do not know.

        Raises:
            ValidationError: Says what is wrong.
        """
        given: dict[str, Any] = super().clean() or {}
        for name in ("email", "phone", "external_id"):
            given[name] = given.get(name) or None
        try:
            given["username"] = check_username(given.get("username") or "")
            check_name_and_address(given["username"], given["email"])
        except ValueError as error:
            raise ValidationError({"username": str(error)}) from None
        return given


class _Inline(admin.TabularInline):  # type: ignore[type-arg] # Django's inlines take no parameter at run time
    extra = 0
    can_delete = False
    show_change_link = False

    @override
    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class SessionInline(_Inline):
    """The devices a user is logged in on, and was."""

    model = Session
    fields = readonly_fields = (
        "device_name",
        "ip",
        "user_agent",
        "created_at",
        "last_seen_at",
        "ended_at",
        "end_reason",
    )
    ordering = ("-created_at",)
    verbose_name_plural = "sessions"


class MembershipInline(_Inline):
    """The groups a user is in."""

    model = Membership
    fields = readonly_fields = ("group", "joined_at")
    verbose_name_plural = "groups"


@admin.register(User)
class UserAdmin(HeraldModelAdmin):
    """Users: find one, see their devices and groups, let them in or shut them out."""

    form = UserForm
    list_display = ("username", "email", "email_verified", "role_names", "tenant", "is_active", "last_login_at")
    list_filter = ("is_active", RoleFilter, "email_verified", "tenant")
    search_fields = ("search_text",)
    search_help_text = "Part of a name, e-mail address, external id or phone number"
    ordering = ("-created_at",)
    list_select_related = ("tenant",)
    inlines = (SessionInline, MembershipInline)
    actions = ("activate_users", "deactivate_users", "end_sessions", "send_reset_mail")
    readonly_fields = ("id", "is_active", "created_at", "last_login_at", "password_changed_at", "audit_trail")
    fieldsets = (
        (None, {"fields": ("username", "roles", "is_active", "tenant", "external_id")}),
        ("Contact", {"fields": ("email", "email_verified", "phone", "locale", "timezone")}),
        ("History", {"fields": ("id", "created_at", "last_login_at", "password_changed_at", "audit_trail")}),
    )

    @admin.display(description="roles")
    def role_names(self, user: User) -> str:
        """For the list."""
        return ", ".join(user.roles)

    @admin.display(description="audit log")
    def audit_trail(self, user: User) -> str:
        """A way to everything that happened to this user."""
        address = reverse("admin:audit_auditevent_changelist")
        return format_html('<a href="{}?q={}">what happened to this user</a>', address, user.id)

    @override
    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[User], search_term: str
    ) -> tuple[QuerySet[User], bool]:
        """Literal, as in the API."""
        found = User.objects.all().matching(search_term) & queryset if search_term else queryset
        return found, False

    @override
    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        """A user stays in their tenant."""
        return (*self.readonly_fields, "tenant") if obj is not None else self.readonly_fields

    @override
    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """Through the actions, with their rules, audit events and identity events."""
        caller = get_admin_caller(request)
        given = form.cleaned_data
        fields = {name: given[name] for name in PROFILE_FIELDS if name in given}
        caller.check_may_grant(given["roles"])
        if not change:
            tenant = check_tenant(caller, given["tenant"].slug)
            made = do_create_user(NewUser(**fields, roles=tuple(given["roles"]), tenant=tenant), caller.origin)
            obj.pk = made.pk
            return
        before = User.objects.get(pk=obj.pk)
        caller.check_may_grant(before.roles)
        do_update_user(before, fields, caller.origin)
        do_set_roles(before, given["roles"], caller.origin)

    @override
    def delete_model(self, request: HttpRequest, obj: User) -> None:
        """Erase."""
        caller = get_admin_caller(request)
        caller.check_may_grant(obj.roles)
        do_erase_user(obj, caller.origin)

    @override
    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[User]) -> None:
        """Erase each."""
        act_on_all(request, queryset, lambda user: self.delete_model(request, user), "erased")

    @admin.action(description="Let in again", permissions=["change"])
    def activate_users(self, request: HttpRequest, users: QuerySet[User]) -> None:
        """Activate the chosen users."""
        self._set_active(request, users, is_active=True)

    @admin.action(description="Shut out: end all sessions, refuse logins", permissions=["change"])
    def deactivate_users(self, request: HttpRequest, users: QuerySet[User]) -> None:
        """Deactivate the chosen users."""
        self._set_active(request, users, is_active=False)

    @admin.action(description="End all sessions", permissions=["change"])
    def end_sessions(self, request: HttpRequest, users: QuerySet[User]) -> None:
        """Log the chosen users out everywhere."""
        caller = get_admin_caller(request)

        def act(user: User) -> None:
            caller.check_may_grant(user.roles)
            do_log_out_everywhere(user, caller.origin, reason=EndReason.REVOKED_BY_ADMIN)

        act_on_all(request, users, act, "logged out everywhere")

    @admin.action(description="Mail a link to set a new password", permissions=["change"])
    def send_reset_mail(self, request: HttpRequest, users: QuerySet[User]) -> None:
        """Leave a mail for each chosen user who has an address."""

        def act(user: User) -> None:
            if not user.email:
                raise InvalidInput("has no e-mail address.")
            do_ask_for_mail(MailKind.PASSWORD_RESET, user.email)

        act_on_all(request, users, act, "mails on their way")

    def _set_active(self, request: HttpRequest, users: QuerySet[User], *, is_active: bool) -> None:
        caller = get_admin_caller(request)

        def act(user: User) -> None:
            caller.check_may_grant(user.roles)
            do_set_active(user, caller.origin, is_active=is_active)

        act_on_all(request, users, act, "let in" if is_active else "shut out")
