from __future__ import annotations

from auth_service.api.routes import route
from auth_service.tokens import views

urlpatterns = [
    route("api/v1/auth/token", views.LoginView),
    route("api/v1/auth/token/refresh", views.RefreshView),
    route("api/v1/auth/token/revoke", views.RevocationView),
    route("api/v1/auth/ws-ticket", views.TicketView),
    route(".well-known/jwks.json", views.KeySetView),
    route(".well-known/oauth-authorization-server", views.MetadataView),
]
