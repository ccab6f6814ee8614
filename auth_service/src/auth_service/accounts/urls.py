from __future__ import annotations

from auth_service.accounts import views
from auth_service.api.routes import route

urlpatterns = [
    route("api/v1/auth/register", views.RegisterView),
    route("api/v1/users", views.UsersView),
    route("api/v1/users/me", views.MeView),
    route("api/v1/users/batch", views.UserBatchView),
    route("api/v1/users/<uuid:user_id>", views.UserView),
    route("api/v1/users/<uuid:user_id>/activate", views.UserActivationView),
    route("api/v1/users/<uuid:user_id>/deactivate", views.UserDeactivationView),
    route("api/v1/users/<uuid:user_id>/roles", views.UserRolesView),
]
