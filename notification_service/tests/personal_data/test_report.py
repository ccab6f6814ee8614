"""The report of an erasure is signed, so that it can be shown to whoever asked for it (X-15)."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from service import Service
from waiting import until

from notification_service.clock import SystemClock
from notification_service.personal_data.erasure import request_erasure
from notification_service.personal_data.report import REPORT_TYPE, ReportSigner

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.req("X-15")]

PATH = "/api/v1/erasures"
NOW = SystemClock().now()


def verify(report: str, keys: list[dict[str, str]]) -> dict[str, Any]:
    """As whoever was shown it would, with a library of their own."""
    kid = jwt.get_unverified_header(report)["kid"]
    (key,) = [each for each in keys if each["kid"] == kid]
    found: dict[str, Any] = jwt.decode(report, jwt.PyJWK(key), algorithms=["EdDSA"])
    return found


async def erase(service: Service, tenant: str) -> UUID:
    user_id = uuid4()
    parts = service.parts["api"]
    async with parts.database.write() as connection:
        await request_erasure(connection, user_id, tenant, clock=parts.clock)
    return user_id


async def test_anybody_can_check_the_report(service: Service) -> None:
    tenant = service.add_tenant()
    admin, gone = service.add_person("admin", tenant=tenant), await erase(service, tenant)

    async def is_swept() -> bool:
        return bool((await service.get(f"{PATH}/{gone}", admin)).json()["sweeps"] == 1)

    await until(is_swept)
    told = (await service.get(f"{PATH}/{gone}", admin)).json()
    assert (told["user_id"], told["tenant"], told["is_complete"]) == (str(gone), tenant, False)
    keys = (await service.get(f"{PATH}/keys")).json()["keys"]
    assert all("d" not in key for key in keys)
    claims = verify(told["report"], keys)
    assert (claims["sub"], claims["tenant"], claims["sweeps"]) == (str(gone), tenant, 1)
    assert (claims["erased"], claims["is_complete"]) == (told["erased"], False)
    head, body, signature = told["report"].split(".")
    flipped = ("A" if body[10] != "A" else "B").join((body[:10], body[11:]))
    with pytest.raises(jwt.InvalidTokenError):
        verify(f"{head}.{flipped}.{signature}", keys)


async def test_who_may_see_it(service: Service) -> None:
    tenant = service.add_tenant()
    gone = await erase(service, tenant)
    stranger, user = service.add_person("admin", tenant=service.add_tenant()), service.add_person(tenant=tenant)
    assert (await service.get(f"{PATH}/{gone}", stranger)).status_code == 404
    assert (await service.get(f"{PATH}/{gone}", user)).status_code == 403
    assert (await service.get(f"{PATH}/{gone}")).status_code == 401
    assert (await service.get(f"{PATH}/{uuid4()}", stranger)).status_code == 404


async def test_reports_outlive_a_change_of_the_secret() -> None:
    before, after = ReportSigner(["a" * 32], "herald"), ReportSigner(["b" * 32, "a" * 32], "herald")
    old, new = (each.sign({"sweeps": 3}, user_id="u", now=NOW) for each in (before, after))
    assert verify(old, after.public_keys["keys"])["sweeps"] == verify(new, after.public_keys["keys"])["sweeps"] == 3
    assert jwt.get_unverified_header(new)["typ"] == REPORT_TYPE
    with pytest.raises(ValueError, match="not enough values"):
        verify(new, before.public_keys["keys"])
