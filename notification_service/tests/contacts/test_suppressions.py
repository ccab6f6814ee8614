"""Addresses nothing is sent to: put on the list by an admin, or by a provider's word about an account's own address."""

from __future__ import annotations

from typing import Any

import pytest
from channel_kit import MailSink
from service import Person, Service
from waiting import until

PATH = "/api/v1/suppressions"
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def outcome(site: Service, admin: Person, person: Person) -> tuple[str, str | None]:
    notification_id = await site.send(admin, person, channels=["email"])
    found: dict[str, Any] = {}

    async def has_ended() -> bool:
        answer = await site.get(f"/api/v1/deliveries?notification_id={notification_id}&channel=email", admin)
        found.update(*answer.json()["items"])
        return found.get("status") not in (None, "pending", "queued")

    await until(has_ended)
    return found["status"], found["reason"]


async def test_an_admin_suppresses_an_address_and_allows_it_again(site: Service, mails: MailSink) -> None:
    tenant = site.add_tenant()
    admin = site.add_person("admin", tenant=tenant)
    person = site.add_person(email="annoyed@example.org", email_verified=True, tenant=tenant)
    given = {"channel": "email", "address": "annoyed@example.org", "reason": "complaint"}
    assert (await site.post(PATH, admin, given)).status_code == 204
    assert (await site.post(PATH, admin, given)).status_code == 204
    assert await outcome(site, admin, person) == ("suppressed", "address_disabled")
    (listed,) = (await site.get(f"{PATH}?channel=email", admin)).json()["items"]
    assert (listed["address"], listed["reason"], listed["user_id"]) == ("a…@example.org", "complaint", None)
    assert (await site.get(f"{PATH}?channel=sms", admin)).json()["items"] == []
    one = f"{PATH}/email/{listed['id']}"
    # Of another tenant, it does not exist.
    stranger = site.add_person("admin", tenant=site.add_tenant())
    assert (await site.get(PATH, stranger)).json()["items"] == []
    assert (await site.call("DELETE", one, stranger)).status_code == 404
    assert (await site.get(PATH, site.add_person("staff", tenant=tenant))).status_code == 403
    assert (await site.call("DELETE", one, admin)).status_code == 204
    assert (await site.call("DELETE", one, admin)).status_code == 404
    assert await outcome(site, admin, person) == ("sent", None)
    assert len(mails.to("annoyed@example.org")) == 1

    def is_written_down() -> bool:
        lines = [line for line in site.auth.audit_lines if line["tenant"] == tenant]
        actions = [line["action"] for line in lines if line["action"].startswith("address.")]
        return sorted(actions) == ["address.allowed", "address.suppressed", "address.suppressed"]

    await until(is_written_down)


async def test_a_mailbox_that_does_not_exist_is_not_written_to_again(site: Service, mails: MailSink) -> None:
    """The address is the account's own, which only the auth service changes."""
    admin = site.add_person("admin", tenant=site.add_tenant())
    person = site.add_person(email="nobody@example.org", email_verified=True, tenant=admin.tenant)
    mails.refuse_recipient = lambda address: "550 5.1.1 no such user" if address == "nobody@example.org" else None
    assert await outcome(site, admin, person) == ("failed", "provider_rejected")
    mails.refuse_recipient = lambda _: None
    assert await outcome(site, admin, person) == ("suppressed", "address_disabled")
    assert mails.to("nobody@example.org") == []
    (listed,) = (await site.get(PATH, admin)).json()["items"]
    assert (listed["reason"], listed["user_id"]) == ("provider_rejected", str(person.id))


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channel": "fax", "address": "1"}, "channel"),
        ({"channel": "email"}, "address"),
        ({"channel": "email", "address": ""}, "address"),
        ({"channel": "email", "address": "a@b.c", "reason": "x" * 41}, "reason"),
    ],
)
async def test_what_cannot_be_suppressed(body: dict[str, Any], field: str, site: Service) -> None:
    answer = await site.post(PATH, site.add_person("admin"), body)
    assert (answer.status_code, [each["field"] for each in answer.json()["errors"]]) == (422, [field])
