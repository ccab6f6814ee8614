"""What users do with their own account beyond the profile: password, mailed links, second factor, export."""

from __future__ import annotations

from django.http import StreamingHttpResponse
from rest_framework.request import Request
from rest_framework.response import Response

from auth_service.accounts import examples
from auth_service.accounts.export import do_export
from auth_service.accounts.foreign_export import fetch_foreign_export, join
from auth_service.accounts.link_actions import do_reset_password, do_verify_email
from auth_service.accounts.mail_actions import do_ask_for_mail
from auth_service.accounts.models import MailKind
from auth_service.accounts.names import make_email_key
from auth_service.accounts.otp_actions import do_confirm, do_enrol, do_remove
from auth_service.accounts.password_actions import do_change_password
from auth_service.accounts.proof import check_recent_proof
from auth_service.accounts.self_serializers import (
    AddressIn,
    EnrolmentOut,
    LinkIn,
    MailAccepted,
    OtpIn,
    PasswordChangeIn,
    ProofIn,
    RecoveryCodesOut,
    ResetConfirmIn,
)
from auth_service.api.access import Access
from auth_service.api.renderers import JsonRenderer
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.audit.origin import Origin
from auth_service.rate_limits import limits
from auth_service.rate_limits.actions import do_count_within

_MAIL_ANSWER = {"detail": "If the address belongs to an account, a mail is on its way."}


class MyPasswordView(ApiView):
    """One's own password."""

    access = {"POST": Access.USER}
    serializer_class = PasswordChangeIn

    @operation(
        "change_my_password",
        "Change one's own password",
        request=PasswordChangeIn,
        status=204,
        sends={"current_password": "a-long-passphrase", "new_password": "a-longer-passphrase"},
        refuses=(429,),
    )
    def post(self, request: Request) -> Response:
        """Ends every other session. A wrong current password is 403."""
        fields = self.read(PasswordChangeIn)
        do_change_password(
            self.user,
            fields["current_password"],
            fields["new_password"],
            self.origin,
            keep_session=self.session_id,
        )
        return Response(status=204)


class ResetView(ApiView):
    """People who forgot their password."""

    access = {"POST": Access.PUBLIC}
    serializer_class = MailAccepted

    @operation(
        "ask_for_reset",
        "Ask for a link to set a new password",
        request=AddressIn,
        response=MailAccepted,
        status=202,
        sends={"email": "ada@example.org"},
        answers=_MAIL_ANSWER,
        refuses=(429,),
    )
    def post(self, request: Request) -> Response:
        """The same answer, in the same time, for known and unknown addresses."""
        return _accept(MailKind.PASSWORD_RESET, self.read(AddressIn)["email"], self.origin)


class ResetConfirmView(ApiView):
    """People who followed the link."""

    access = {"POST": Access.PUBLIC}
    serializer_class = ResetConfirmIn

    @operation(
        "reset_password",
        "Set a new password by a mailed link",
        request=ResetConfirmIn,
        status=204,
        sends={"token": "hml_...", "new_password": "a-longer-passphrase"},
    )
    def post(self, request: Request) -> Response:
        """Ends every session. Any link that does not count is 400 `invalid_token_link`, without a reason."""
        fields = self.read(ResetConfirmIn)
        do_reset_password(fields["token"], fields["new_password"], self.origin)
        return Response(status=204)


class EmailVerificationView(ApiView):
    """People who prove their address."""

    access = {"POST": Access.PUBLIC}
    serializer_class = LinkIn

    @operation(
        "verify_email", "Prove an address by a mailed link", request=LinkIn, status=204, sends={"token": "hml_..."}
    )
    def post(self, request: Request) -> Response:
        """Any link that does not count is 400 `invalid_token_link`, without a reason."""
        do_verify_email(self.read(LinkIn)["token"], self.origin)
        return Response(status=204)


class EmailVerificationResendView(ApiView):
    """People whose mail got lost."""

    access = {"POST": Access.PUBLIC}
    serializer_class = MailAccepted

    @operation(
        "ask_for_verification",
        "Ask for the verification mail again",
        request=AddressIn,
        response=MailAccepted,
        status=202,
        sends={"email": "ada@example.org"},
        answers=_MAIL_ANSWER,
        refuses=(429,),
    )
    def post(self, request: Request) -> Response:
        """The same answer, in the same time, for known and unknown addresses."""
        return _accept(MailKind.EMAIL_VERIFICATION, self.read(AddressIn)["email"], self.origin)


class MyOtpView(ApiView):
    """One's own second factor."""

    access = {"POST": Access.USER, "DELETE": Access.USER}
    serializer_class = EnrolmentOut

    @operation(
        "enrol_otp",
        "Begin with a second factor",
        response=EnrolmentOut,
        answers={"secret": "JBSWY3DPEHPK3PXP", "otpauth_uri": "otpauth://totp/Herald:ada?secret=...&issuer=Herald"},
        refuses=(409,),
    )
    def post(self, request: Request) -> Response:
        """Logins go on without it until a first code has confirmed it. Needs a recent login, or `password`."""
        check_recent_proof(self.caller, self.read(ProofIn))
        enrolment = do_enrol(self.user)
        return Response({"secret": enrolment.secret, "otpauth_uri": enrolment.uri})

    @operation("remove_otp", "Do without a second factor", request=ProofIn, status=204, sends={"otp": "123456"})
    def delete(self, request: Request) -> Response:
        """Within ten minutes of a login, or with `otp` or `password` in the body."""
        check_recent_proof(self.caller, self.read(ProofIn))
        do_remove(self.user, self.origin)
        return Response(status=204)


class MyOtpConfirmView(ApiView):
    """The first code."""

    access = {"POST": Access.USER}
    serializer_class = RecoveryCodesOut

    @operation(
        "confirm_otp",
        "Switch the second factor on",
        request=OtpIn,
        response=RecoveryCodesOut,
        sends={"otp": "123456"},
        answers={"recovery_codes": ["abcd-efgh-ijkl-mnop"]},
        refuses=(409,),
    )
    def post(self, request: Request) -> Response:
        """Answers ten recovery codes, shown this once. From now on every login needs a code."""
        return Response({"recovery_codes": do_confirm(self.user, self.read(OtpIn)["otp"], self.origin)})


class MyExportView(ApiView):
    """Everything held about oneself."""

    access = {"GET": Access.USER}

    @operation(
        "export_me",
        "Export everything held about oneself",
        response={"type": "object", "additionalProperties": True},
        answers={
            "exported_at": "2026-01-02T03:04:05Z",
            "profile": examples.USER,
            "groups": [],
            "sessions": [],
            "notifications": {"exported_at": "2026-01-02T03:04:05Z", "inbox": [], "contacts": []},
        },
        refuses=(429,),
    )
    def get(self, request: Request) -> StreamingHttpResponse:
        """Profile, groups, sessions with devices and addresses, the audit trail, and under `notifications` what the
        notification service holds: inbox, preferences, contacts, deliveries. No secrets.

        While that service does not answer there is no export at all (503) rather than half of one.
        """
        do_count_within(limits.export_of_user(str(self.user.id)))
        foreign = fetch_foreign_export(self.user.id)
        own = JsonRenderer().render(do_export(self.user, self.origin))
        headers = {"Content-Disposition": 'attachment; filename="herald-account.json"'}
        return StreamingHttpResponse(
            join(own, "notifications", foreign), content_type="application/json", headers=headers
        )


def _accept(kind: MailKind, address: str, by: Origin) -> Response:
    do_count_within(limits.mail_from_address(by.ip), limits.mail_to_account(make_email_key(address)))
    do_ask_for_mail(kind, address)
    return Response(_MAIL_ANSWER, status=202)
