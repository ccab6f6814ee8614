from __future__ import annotations

from django.urls import path

from auth_service.accounts import pages, self_views, views
from auth_service.api.routes import route

urlpatterns = [
    path("account/forgot-password", pages.ForgotPasswordPage.as_view(), name="ForgotPasswordPage"),
    path("account/reset-password", pages.ResetPasswordPage.as_view(), name="ResetPasswordPage"),
    path("account/verify-email", pages.VerifyEmailPage.as_view(), name="VerifyEmailPage"),
    route("api/v1/auth/register", views.RegisterView),
    route("api/v1/auth/password/reset", self_views.ResetView),
    route("api/v1/auth/password/reset/confirm", self_views.ResetConfirmView),
    route("api/v1/auth/email/verify", self_views.EmailVerificationView),
    route("api/v1/auth/email/verify/resend", self_views.EmailVerificationResendView),
    route("api/v1/users", views.UsersView),
    route("api/v1/users/me", views.MeView),
    route("api/v1/users/me/password", self_views.MyPasswordView),
    route("api/v1/users/me/otp", self_views.MyOtpView),
    route("api/v1/users/me/otp/confirm", self_views.MyOtpConfirmView),
    route("api/v1/users/me/export", self_views.MyExportView),
    route("api/v1/users/batch", views.UserBatchView),
    route("api/v1/users/<uuid:user_id>", views.UserView),
    route("api/v1/users/<uuid:user_id>/activate", views.UserActivationView),
    route("api/v1/users/<uuid:user_id>/deactivate", views.UserDeactivationView),
    route("api/v1/users/<uuid:user_id>/roles", views.UserRolesView),
]
