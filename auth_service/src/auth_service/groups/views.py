from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.utils import OpenApiParameter
from rest_framework.request import Request
from rest_framework.response import Response
from typing_extensions import override

from auth_service.accounts.actions import check_tenant
from auth_service.api.access import Access
from auth_service.api.pagination import CursorPages
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.errors import NotFound
from auth_service.groups.actions import (
    do_change_members,
    do_create_group,
    do_delete_group,
    do_update_group,
    find_visible_groups,
    get_group,
)
from auth_service.groups.filters import GroupFilter
from auth_service.groups.models import Group, Membership
from auth_service.groups.serializers import GroupChangesIn, GroupIn, GroupOut, MemberOut, MembersIn, MembersOut
from shared_contracts.scopes import Scope

_GROUP = {
    "id": "0192f6a0-c0de-7abc-8def-00000000beef",
    "name": "Ops",
    "slug": "ops",
    "description": "",
    "tenant": "default",
    "created_at": "2026-01-02T03:04:05Z",
    "updated_at": "2026-01-02T03:04:05Z",
}
_USER_ID = "0192f6a0-c0de-7abc-8def-0123456789ab"
_MEMBER = {"user_id": _USER_ID, "username": "ada", "joined_at": "2026-01-02T03:04:05Z"}


class GroupsView(ApiView):
    """The groups of a tenant."""

    access = {"GET": Access.CALLER, "POST": Scope.GROUPS_WRITE}
    serializer_class = GroupOut
    pagination_class = CursorPages
    filter_backends = (DjangoFilterBackend,)
    filterset_class = GroupFilter
    orderings = ("created_at", "-created_at")

    @override
    def get_queryset(self) -> QuerySet[Group]:
        """Those the caller may see."""
        if getattr(self, "swagger_fake_view", False):
            return Group.objects.none()
        return find_visible_groups(self.caller, tenant=self.request.query_params.get("tenant"))

    @operation(
        "list_groups",
        "List groups",
        response=GroupOut(many=True),
        answers=_GROUP,
        parameters=[OpenApiParameter("tenant", str, description="Another tenant's: administrators of `default` only.")],
    )
    def get(self, request: Request) -> Response:
        """All of the tenant with `users:read` or `groups:write`, else the groups one is in."""
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset())) or []
        return self.get_paginated_response(GroupOut(page, many=True).data)

    @operation(
        "create_group",
        "Make a group",
        request=GroupIn,
        response=GroupOut,
        status=201,
        sends={"name": "Ops", "slug": "ops", "description": ""},
        answers=_GROUP,
        refuses=(409,),
    )
    def post(self, request: Request) -> Response:
        """An empty group."""
        fields = self.read(GroupIn)
        tenant = check_tenant(self.caller, fields.pop("tenant", None))
        return Response(GroupOut(do_create_group(tenant, fields, self.origin)).data, status=201)


class GroupView(ApiView):
    """One group."""

    access = {"GET": Access.CALLER, "PATCH": Scope.GROUPS_WRITE, "DELETE": Scope.GROUPS_WRITE}
    serializer_class = GroupOut

    @operation("get_group", "Read a group", response=GroupOut, answers=_GROUP)
    def get(self, request: Request, group_id: UUID) -> Response:
        """Members may, and who has `users:read` or `groups:write`."""
        return Response(GroupOut(get_group(self.caller, group_id)).data)

    @operation(
        "change_group",
        "Change a group",
        request=GroupChangesIn,
        response=GroupOut,
        sends={"name": "Operations"},
        answers={**_GROUP, "name": "Operations"},
        refuses=(409,),
    )
    def patch(self, request: Request, group_id: UUID) -> Response:
        """Changes what is named and leaves the rest."""
        group = get_group(self.caller, group_id)
        return Response(GroupOut(do_update_group(group, self.read(GroupChangesIn), self.origin)).data)

    @operation("delete_group", "Delete a group", status=204)
    def delete(self, request: Request, group_id: UUID) -> Response:
        """The members stay users."""
        do_delete_group(get_group(self.caller, group_id), self.origin)
        return Response(status=204)


class MembersView(ApiView):
    """The members of one group."""

    access = {"GET": Access.CALLER}
    serializer_class = MemberOut
    pagination_class = CursorPages
    orderings = ("joined_at", "-joined_at")

    @operation(
        "list_members",
        "List the members of a group",
        response=MemberOut(many=True),
        answers=_MEMBER,
    )
    def get(self, request: Request, group_id: UUID) -> Response:
        """Members may, and who has `users:read` or `groups:write`."""
        members = Membership.objects.filter(group=get_group(self.caller, group_id)).select_related("user")
        return self.get_paginated_response(MemberOut(self.paginate_queryset(members) or [], many=True).data)


class MemberView(ApiView):
    """One member of one group."""

    access = {"PUT": Scope.GROUPS_WRITE, "DELETE": Scope.GROUPS_WRITE}
    serializer_class = MemberOut

    @operation("add_member", "Add a member", response=MemberOut, answers=_MEMBER)
    def put(self, request: Request, group_id: UUID, user_id: UUID) -> Response:
        """Adding a member twice changes nothing."""
        group = get_group(self.caller, group_id)
        outcome = do_change_members(group, add=[user_id], remove=[], by=self.origin)
        if outcome.unknown:
            raise NotFound("There is no such user in this tenant.")
        member = Membership.objects.select_related("user").filter(group=group, user_id=user_id).first()
        if member is None:
            raise NotFound
        return Response(MemberOut(member).data)

    @operation("remove_member", "Remove a member", status=204)
    def delete(self, request: Request, group_id: UUID, user_id: UUID) -> Response:
        """404 when the user is not in the group."""
        group = get_group(self.caller, group_id)
        if not do_change_members(group, add=[], remove=[user_id], by=self.origin).removed:
            raise NotFound("This user is not in the group.")
        return Response(status=204)


class MembersBatchView(ApiView):
    """Many members of one group at once."""

    access = {"POST": Scope.GROUPS_WRITE}
    serializer_class = MembersOut

    @operation(
        "change_members",
        "Add and remove members",
        request=MembersIn,
        response=MembersOut,
        sends={"add": [_USER_ID], "remove": []},
        answers={"added": [_USER_ID], "removed": [], "unknown": []},
    )
    def post(self, request: Request, group_id: UUID) -> Response:
        """One change, one event, up to 1,000 users each way."""
        group = get_group(self.caller, group_id)
        wanted = self.read(MembersIn)
        outcome = do_change_members(group, add=wanted.get("add", []), remove=wanted.get("remove", []), by=self.origin)
        return Response(MembersOut(outcome).data)
