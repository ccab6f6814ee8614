from __future__ import annotations

from auth_service.api.routes import route
from auth_service.sessions import views

urlpatterns = [
    route("api/v1/auth/logout", views.LogoutView),
    route("api/v1/auth/logout-all", views.LogoutAllView),
    route("api/v1/users/me/sessions", views.MySessionsView),
    route("api/v1/users/me/sessions/<uuid:session_id>", views.MySessionView),
    route("api/v1/users/<uuid:user_id>/sessions", views.UserSessionsView),
]
