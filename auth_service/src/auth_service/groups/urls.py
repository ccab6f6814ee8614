from __future__ import annotations

from auth_service.api.routes import route
from auth_service.groups import views

urlpatterns = [
    route("api/v1/groups", views.GroupsView),
    route("api/v1/groups/<uuid:group_id>", views.GroupView),
    route("api/v1/groups/<uuid:group_id>/members", views.MembersView),
    route("api/v1/groups/<uuid:group_id>/members/batch", views.MembersBatchView),
    route("api/v1/groups/<uuid:group_id>/members/<uuid:user_id>", views.MemberView),
]
