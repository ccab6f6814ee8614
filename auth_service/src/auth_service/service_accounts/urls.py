from __future__ import annotations

from auth_service.api.routes import route
from auth_service.service_accounts import views

urlpatterns = [
    route("api/v1/auth/service-token", views.ServiceTokenView),
    route("api/v1/auth/user-tokens", views.UserTokensView),
    route("api/v1/service-accounts", views.ServiceAccountsView),
    route("api/v1/service-accounts/<uuid:account_id>", views.ServiceAccountView),
    route("api/v1/service-accounts/<uuid:account_id>/rotate-secret", views.SecretRotationView),
]
