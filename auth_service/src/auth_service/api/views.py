"""The base of every view of the API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from rest_framework.exceptions import MethodNotAllowed as DrfMethodNotAllowed
from rest_framework.generics import GenericAPIView
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.serializers import BaseSerializer
from typing_extensions import override

from auth_service.accounts.models import User
from auth_service.api.access import WITHOUT_TOKEN, Rule, Rules
from auth_service.api.authentication import get_origin
from auth_service.api.caller import Caller
from auth_service.audit.origin import Origin
from auth_service.errors import MethodNotAllowed
from auth_service.tokens.errors import Unauthenticated


class ApiView(GenericAPIView[Any]):
    """A view that declares who may call it, per method, in `access`."""

    access: ClassVar[Rules]
    http_method_names = ["get", "post", "put", "patch", "delete", "head"]
    filter_backends: Sequence[Any] = ()
    pagination_class: type[BasePagination] | None = None

    @override
    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse a method before asking for credentials, so that 405 does not depend on them (A25)."""
        if (request.method or "") not in self.allowed_methods:
            raise MethodNotAllowed(self.allowed_methods)
        super().initial(request, *args, **kwargs)

    @override
    def http_method_not_allowed(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """Methods that HTTP knows and this API does not."""
        raise MethodNotAllowed(self.allowed_methods) from DrfMethodNotAllowed(request.method or "")

    @override
    def perform_authentication(self, request: Request) -> None:
        """Look at the token only where one counts: a stale one must not keep anyone from logging in."""
        if self.rule_of(request) in WITHOUT_TOKEN:
            request.user = None  # type: ignore[assignment] # nobody, and nobody asks the token later either
        else:
            super().perform_authentication(request)

    def rule_of(self, request: Request) -> Rule:
        """The rule for the request's method; HEAD is GET."""
        method = request.method or ""
        return self.access["GET" if method == "HEAD" else method]

    @property
    def caller(self) -> Caller:
        """Who calls; only where the rule lets nobody else through."""
        caller = self.request.user
        assert isinstance(caller, Caller)
        return caller

    @property
    def user(self) -> User:
        """The person who calls.

        Raises:
            Unauthenticated: It is a service account.
        """
        user = self.caller.user
        if user is None:
            raise Unauthenticated
        return user

    @property
    def session_id(self) -> UUID:
        """The session of the caller's token."""
        session_id = self.caller.session_id
        assert session_id is not None
        return session_id

    @property
    def origin(self) -> Origin:
        """Where the request comes from."""
        return get_origin(self.request) if self.rule_of(self.request) in WITHOUT_TOKEN else self.caller.origin

    def read(self, shape: type[BaseSerializer[Any]], **options: Any) -> dict[str, Any]:
        """The checked body. In a POST, null says the same as leaving the member out.

        Raises:
            rest_framework.exceptions.ValidationError: Answered as 422 with the fields that are wrong.
        """
        is_new = self.request.method == "POST"
        serializer = shape(data=self.request.data, context=self.get_serializer_context(), **options)
        serializer.is_valid(raise_exception=True)
        fields = dict(serializer.validated_data)
        return {name: value for name, value in fields.items() if value is not None} if is_new else fields
