from __future__ import annotations

from auth_service.api.routes import route
from auth_service.internal_api import views

urlpatterns = [
    route("internal/v1/tokens/introspect", views.IntrospectionView),
    route("internal/v1/tokens/introspect/batch", views.IntrospectionBatchView),
    route("internal/v1/tickets/redeem", views.TicketRedemptionView),
    route("internal/v1/users", views.MirroredUsersView),
    route("internal/v1/users/erased", views.ErasedUsersView),
    route("internal/v1/groups", views.MirroredGroupsView),
    route("internal/v1/memberships", views.MirroredMembershipsView),
    route("internal/v1/audit-events", views.ForeignAuditEventsView),
]
