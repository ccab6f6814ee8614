"""The Django admin for support people: our login with limits and second factor, our actions, our audit log."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.forms import AuthenticationForm
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from typing_extensions import override

from auth_service.accounts.models import User
from auth_service.api.caller import Caller
from auth_service.api.client_address import get_client_address, is_operator_address
from auth_service.api.correlation import get_correlation_id
from auth_service.api.problems import make_response
from auth_service.audit.actions import do_record
from auth_service.audit.models import Action
from auth_service.audit.origin import Origin
from auth_service.errors import NotFound, ServiceError
from auth_service.internal_api.keys import is_internal_key
from auth_service.tokens.login_actions import Credentials, check_credentials
from shared_contracts.headers import INTERNAL_KEY
from shared_contracts.problems import FieldError

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin


def get_admin_origin(request: HttpRequest) -> Origin:
    """Where this request comes from, and who makes it once they have logged in."""
    origin = Origin(
        ip=get_client_address(request),
        user_agent=request.headers.get("User-Agent", ""),
        correlation_id=get_correlation_id(),
    )
    user = getattr(request, "user", None)
    return origin.acting_as("user", user.id, user.tenant_id) if isinstance(user, User) else origin


def get_admin_caller(request: HttpRequest) -> Caller:
    """The person on the admin site, as our rules see them."""
    user = request.user
    assert isinstance(user, User)
    return Caller(id=user.id, tenant=user.tenant_id, scopes=user.scopes, origin=get_admin_origin(request), user=user)


class AdminLoginForm(AuthenticationForm):
    """Name, password and, for those who have one, the code of the second factor."""

    otp = forms.CharField(
        label="Code of the second factor", required=False, max_length=64, help_text="Only if you use one."
    )

    @override
    def clean(self) -> dict[str, Any]:
        """Check everything, with the limits of every other login.

        Raises:
            ValidationError: Says as little as the API does.
        """
        given = self.cleaned_data
        assert self.request is not None
        origin = get_admin_origin(self.request)
        credentials = Credentials(
            given.get("password") or "", username=given.get("username") or "", otp=given.get("otp") or None
        )
        try:
            user = check_credentials(credentials, origin)
        except ServiceError as error:
            raise ValidationError(str(error)) from None
        self.confirm_login_allowed(user)
        if not user.is_staff:
            raise ValidationError("This account has no access to the administration.")
        do_record(
            Action.LOGIN_SUCCEEDED,
            origin.acting_as("user", user.id, user.tenant_id),
            subject=("user", user.id),
            details={"admin_site": True, "second_factor": credentials.otp is not None},
        )
        self.user_cache = user
        return given


class HeraldAdminSite(admin.AdminSite):
    """Reachable in production from the operators' networks only (G04)."""

    site_header = "Herald administration"
    site_title = "Herald"
    index_title = "Users, groups and what happened to them"
    login_form = AdminLoginForm

    @override
    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        """Every page, behind the network rule."""
        return _operators_only(super().admin_view(view, cacheable))

    @override
    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The login page, behind the network rule too."""
        page = super().login

        def show(asked: HttpRequest) -> HttpResponse:
            return page(asked, extra_context)

        shown: HttpResponse = _operators_only(show)(request)
        return shown


def _operators_only(view: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        has_key = is_internal_key(request.headers.get(INTERNAL_KEY))
        if settings.HERALD.is_production and not has_key and not is_operator_address(request):
            return make_response(NotFound())
        return view(request, *args, **kwargs)

    return guarded


class HeraldModelAdmin(ModelAdmin):
    """Rows of one's own tenant. Changes go through the actions of the API, whose refusals become messages."""

    tenant_field = "tenant"
    show_full_result_count = False
    list_per_page = 50

    @override
    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Operators see all tenants, everyone else their own."""
        rows: QuerySet[Any] = super().get_queryset(request)
        caller = get_admin_caller(request)
        return rows if caller.is_operator else rows.filter(**{self.tenant_field: caller.tenant})

    @override
    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """A page that changes a row."""
        return self._show_refusals(request, super().changeform_view, *args, **kwargs)

    @override
    def delete_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """A page that deletes a row."""
        return self._show_refusals(request, super().delete_view, *args, **kwargs)

    def _show_refusals(
        self, request: HttpRequest, view: Callable[..., HttpResponse], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except ServiceError as error:
            messages.error(request, say(error))
            return HttpResponseRedirect(request.path)

    # Django's own log would keep names of people who have been erased; the audit log has it all.
    @override
    def log_addition(self, *_args: Any, **_kwargs: Any) -> Any:
        """Nothing: the action has written an audit event."""

    @override
    def log_change(self, *_args: Any, **_kwargs: Any) -> Any:
        """Nothing: the action has written an audit event."""

    @override
    def log_deletions(self, *_args: Any, **_kwargs: Any) -> Any:
        """Nothing: the action has written an audit event."""


class LookOnlyAdmin(HeraldModelAdmin):
    """Rows to look at."""

    @override
    def has_add_permission(self, request: HttpRequest, *_args: Any) -> bool:
        """Never."""
        return False

    @override
    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never."""
        return False

    @override
    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """Never."""
        return False


def say(error: ServiceError) -> str:
    """An error as one sentence for a person."""

    def one(wrong: FieldError) -> str:
        return f"{wrong.field}: {wrong.message}" if wrong.field else wrong.message

    return " ".join([str(error), *(one(wrong) for wrong in error.errors if wrong.message != str(error))])


def act_on_all(request: HttpRequest, rows: QuerySet[Any], act: Callable[[Any], object], done: str) -> None:
    """Do something to each chosen row; say how often it worked and why it did not."""
    count = 0
    for row in rows:
        try:
            act(row)
            count += 1
        except ServiceError as error:
            messages.error(request, f"{row}: {say(error)}")
    if count:
        messages.success(request, f"{done}: {count}")
