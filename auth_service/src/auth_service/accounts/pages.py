"""The pages that links in mails lead to: plain forms, without scripts, for people without the application at hand.

Opening a link changes nothing, for mail programs open links to look at them; only the button does.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_protect
from typing_extensions import override

from auth_service.accounts.link_actions import check_link, do_reset_password, do_verify_email
from auth_service.accounts.mail_actions import do_ask_for_mail
from auth_service.accounts.models import LinkPurpose, MailKind
from auth_service.accounts.names import make_email_key
from auth_service.api.client_address import get_client_address
from auth_service.api.correlation import get_correlation_id
from auth_service.audit.origin import Origin
from auth_service.errors import ServiceError
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import do_count_within


class AddressForm(forms.Form):
    """Where to send a link."""

    email = forms.EmailField(label="E-mail address", max_length=254)


class PasswordForm(forms.Form):
    """A new password, typed once: people use managers, and can look at it."""

    new_password = forms.CharField(
        label="New password", widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}), strip=False
    )


class NoForm(forms.Form):
    """A button alone."""


@method_decorator(csrf_protect, name="dispatch")
class Page(ABC, View):
    """Base: show a form, do something with it, show what became of it."""

    http_method_names = ["get", "post", "head"]
    title = ""
    text = ""
    button = ""
    done = ""
    form_class: type[forms.Form] = NoForm
    purpose: LinkPurpose | None = None

    def get(self, request: HttpRequest) -> HttpResponse:
        """The form, or the refusal of a link that does not count."""
        try:
            if self.purpose is not None:
                check_link(_token_of(request), self.purpose)
        except ServiceError as error:
            return self._show(request, status=error.status, message=str(error))
        return self._show(request, form=self.form_class())

    def post(self, request: HttpRequest) -> HttpResponse:
        """Do what the form is for."""
        form = self.form_class(request.POST)
        if not form.is_valid():
            return self._show(request, form=form, status=422)
        try:
            self.act(request, form.cleaned_data)
        except ServiceError as error:
            for wrong in error.errors:
                form.add_error(wrong.field if wrong.field in form.fields else None, wrong.message)
            shown = form if error.errors else None
            return self._show(request, form=shown, status=error.status, message="" if error.errors else str(error))
        return self._show(request, message=self.done)

    @abstractmethod
    def act(self, request: HttpRequest, given: dict[str, Any]) -> None:
        """What the form is for."""

    def _show(
        self, request: HttpRequest, *, form: forms.Form | None = None, status: int = 200, message: str = ""
    ) -> HttpResponse:
        context = {"page": self, "form": form, "message": message}
        return render(request, "account/page.html", context, status=status)


class ForgotPasswordPage(Page):
    """Ask for a link."""

    title = "Forgotten password"
    text = "We mail you a link to set a new one."
    button = "Send the link"
    done = "If the address belongs to an account, a mail is on its way."
    form_class = AddressForm

    @override
    def act(self, request: HttpRequest, given: dict[str, Any]) -> None:
        """Leave a mail to be sent."""
        address = given["email"]
        ip = get_client_address(request)
        do_count_within(limits.mail_from_address(ip), limits.mail_to_account(make_email_key(address)))
        do_ask_for_mail(MailKind.PASSWORD_RESET, address)


class ResetPasswordPage(Page):
    """Set a new password."""

    title = "New password"
    text = "At least eight characters; a few words are better than one."
    button = "Set the password"
    done = "The password is set, and every device has been logged out. You can log in now."
    form_class = PasswordForm
    purpose = LinkPurpose.PASSWORD_RESET

    @override
    def act(self, request: HttpRequest, given: dict[str, Any]) -> None:
        """Reset."""
        do_reset_password(_token_of(request), given["new_password"], _origin_of(request))


class VerifyEmailPage(Page):
    """Prove an address."""

    title = "Confirm your e-mail address"
    text = "One click, and it is yours."
    button = "Confirm"
    done = "The address is confirmed."
    purpose = LinkPurpose.EMAIL_VERIFICATION

    @override
    def act(self, request: HttpRequest, given: dict[str, Any]) -> None:
        """Verify."""
        do_verify_email(_token_of(request), _origin_of(request))


def _token_of(request: HttpRequest) -> str:
    return request.GET.get("token", "")


def _origin_of(request: HttpRequest) -> Origin:
    return Origin(
        ip=get_client_address(request),
        user_agent=request.headers.get("User-Agent", ""),
        correlation_id=get_correlation_id(),
    )
