"""The auth service's side of what this service asks it, as real HTTP on loopback, with keys of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import cache
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from web import serving

from shared_contracts.ids import new_id
from shared_contracts.scopes import format_scope, scopes_of

INTERNAL_KEY = "test-internal-key-0123456789"
ISSUER = "https://auth.example"
START = datetime(2026, 1, 1, tzinfo=UTC)


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    """One for the whole run: making one takes a tenth of a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def edwards_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def public_jwk(private_key: Any, kid: str) -> dict[str, Any]:
    """What the key set shows of a key."""
    is_rsa = isinstance(private_key, rsa.RSAPrivateKey)
    algorithm: Any = jwt.algorithms.RSAAlgorithm if is_rsa else jwt.algorithms.OKPAlgorithm
    entry = json.loads(algorithm.to_jwk(private_key.public_key()))
    return {**entry, "kid": kid, "use": "sig", "alg": "RS256" if is_rsa else "EdDSA"}


def make_claims(**changes: Any) -> dict[str, Any]:
    """Claims of a valid access token; a change to None leaves the claim out."""
    now = int(time.time())
    roles = changes.pop("roles", ["user"])
    claims = {
        "iss": ISSUER,
        "aud": "herald",
        "sub": str(uuid4()),
        "jti": str(uuid4()),
        "sid": str(uuid4()),
        "iat": now,
        "nbf": now,
        "exp": now + 900,
        "roles": roles,
        "scope": format_scope(scopes_of(roles)),
        "tenant": "default",
        "token_use": "access",
    }
    return {name: value for name, value in {**claims, **changes}.items() if value is not None}


def sign(claims: dict[str, Any], *, kid: str = "ed-1", key: Any = None, **header: Any) -> str:
    key = key or edwards_key()
    algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "EdDSA"
    return jwt.encode(claims, key, algorithm, headers={"kid": kid, "typ": "at+jwt", **header})


class AuthSite:
    """What it answers can be changed at any time.

    Attributes:
        asked: Requests by path.
        batches: The tokens of each introspection call.
        inactive: Tokens that introspection calls inactive.
        endings: What introspection says of how an inactive token ended.
        overrides: Changes to what introspection says of a subject.
        is_down: Answer 503 to everything.
        delay_s: Before every answer.
        erased: Tenants of users that were erased, by id.
        audit_lines: What was handed over for the audit log, each id once.
        refused_actions: Lines with these make their whole call 422.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: Counter[str] = Counter()
        self.batches: list[list[str]] = []
        self.internal_keys_seen: set[str | None] = set()
        self.keys = [public_jwk(edwards_key(), "ed-1"), public_jwk(rsa_key(), "rsa-1")]
        self.key_set_body: bytes | None = None
        self.inactive: set[str] = set()
        self.endings: dict[str, str] = {}
        self.overrides: dict[str, dict[str, Any]] = {}
        self.tickets: dict[str, dict[str, Any]] = {}
        self.is_down = False
        self.delay_s = 0.0
        self.revision = 0
        self.page_size = 1000
        self.users: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []
        self.memberships: list[dict[str, Any]] = []
        self.erased: dict[str, str] = {}
        self.audit_lines: list[dict[str, Any]] = []
        self.refused_actions: set[str] = set()
        self.app = Starlette(
            routes=[
                Route("/.well-known/jwks.json", self._key_set),
                Route("/internal/v1/tokens/introspect/batch", self._introspect, methods=["POST"]),
                Route("/internal/v1/tickets/redeem", self._redeem, methods=["POST"]),
                Route("/internal/v1/users/erased", self._erased),
                Route("/internal/v1/audit-events", self._take_audit_lines, methods=["POST"]),
                Route("/internal/v1/{what}", self._list),
            ]
        )

    # --- making things --------------------------------------------------------------------------------------------

    def token(self, **claims: Any) -> str:
        """A valid token; claims as in `make_claims`."""
        return sign(make_claims(**claims))

    def add_user(self, **fields: Any) -> UUID:
        """A user of the listings; the revision rises as with an event."""
        user = make_user(**fields)
        self.users.append(user)
        self.revision += 1
        return UUID(user["id"])

    def add_group(self, *members: UUID, **fields: Any) -> UUID:
        group = make_group(**fields)
        self.groups.append(group)
        self.memberships += [{"group_id": group["id"], "user_id": str(each)} for each in members]
        self.revision += 1
        return UUID(group["id"])

    # --- answering ------------------------------------------------------------------------------------------------

    async def _key_set(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        if self.key_set_body is not None:
            return Response(self.key_set_body, media_type="application/json")
        return JSONResponse({"keys": self.keys})

    async def _introspect(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        tokens = (await request.json())["tokens"]
        self.batches.append(tokens)
        items = [self._describe(token) for token in tokens]
        return JSONResponse({"items": items, "endings": [self.endings.get(token) for token in tokens]})

    async def _redeem(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        claims = self.tickets.pop((await request.json())["ticket"], None)
        return JSONResponse({"active": True, **claims} if claims else {"active": False})

    async def _list(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        rows: list[dict[str, Any]] = getattr(self, request.path_params["what"])
        query = request.query_params
        if "ids" in query:
            rows = [row for row in rows if row["id"] in query["ids"].split(",")]
        for name in ("tenant", "external_id", "group_id"):
            if name in query:
                rows = [row for row in rows if row[name] in query.getlist(name)]
        start = int(query.get("cursor", 0))
        end = start + min(self.page_size, int(query.get("limit", self.page_size)))
        return JSONResponse(
            {
                "items": rows[start:end],
                "next_cursor": str(end) if end < len(rows) else None,
                "revision": self.revision,
            }
        )

    async def _erased(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        named = request.query_params["ids"].split(",")
        found = [{"id": each, "tenant": self.erased[each]} for each in named if each in self.erased]
        return JSONResponse({"items": found})

    async def _take_audit_lines(self, request: Request) -> Response:
        if refusal := await self._note(request):
            return refusal
        items = (await request.json())["items"]
        if not 1 <= len(items) <= 500 or any(item["action"] in self.refused_actions for item in items):
            return Response(status_code=422)
        known = {line["id"] for line in self.audit_lines}
        new = [item for item in items if item["id"] not in known]
        self.audit_lines += new
        return JSONResponse({"written": len(new)})

    def _describe(self, token: str) -> dict[str, Any]:
        claims = jwt.decode(token, options={"verify_signature": False})
        if token in self.inactive or claims["exp"] < time.time():
            return {"active": False}
        return {"active": True, "username": "ada", **claims, **self.overrides.get(claims["sub"], {})}

    async def _note(self, request: Request) -> Response | None:
        self.asked[request.url.path] += 1
        self.internal_keys_seen.add(request.headers.get("x-internal-key"))
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return Response(status_code=503) if self.is_down else None


def make_user(**fields: Any) -> dict[str, Any]:
    """A row of `/internal/v1/users`."""
    # As the auth service makes them: the id and the date say since when broadcasts are for them.
    user_id = str(fields.pop("id", new_id()))
    return {
        "id": user_id,
        "external_id": None,
        "username": user_id,
        "email": f"{user_id}@example.org",
        "email_verified": True,
        "phone": None,
        "locale": "en",
        "timezone": "UTC",
        "roles": ["user"],
        "tenant": "default",
        "is_active": True,
        "created_at": datetime.now(UTC).isoformat(),
        **fields,
    }


def make_group(**fields: Any) -> dict[str, Any]:
    """A row of `/internal/v1/groups`."""
    group_id = str(fields.pop("id", uuid4()))
    return {"id": group_id, "slug": group_id, "name": "Team", "tenant": "default", **fields}


@contextlib.asynccontextmanager
async def auth_site() -> AsyncIterator[AuthSite]:
    """One that listens."""
    site = AuthSite()
    async with serving(site.app, lifespan="off") as url:
        site.url = url
        yield site
