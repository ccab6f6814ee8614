"""Sockets whose token ends while they are open, on both nodes: warned, renewed in place, or closed."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from harness.broker import Backend
from harness.people import Person, Rest
from harness.sockets import connect
from harness.stack import Stack

pytestmark = pytest.mark.only_on("sqlite")

LIFETIME_S = 8


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def shorten(stack: Stack, person: Person, *, lifetime_s: int) -> str:
    """The same token, ending soon, signed anew with the key of the installation: nobody waits a quarter of an hour."""
    (path,) = (stack.system.run_dir / "auth-keys").glob("*.json")
    key = serialization.load_pem_private_key(json.loads(path.read_text())["private_key"].encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    head, payload, _ = person.access.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims["exp"] = int(time.time()) + lifetime_s
    signed = f"{head}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@pytest.mark.req("D06", "X-13")
async def test_who_never_sends_is_warned_and_closed_at_the_end_of_the_token(
    stack: Stack, rest: Rest, backend: Backend
) -> None:
    (person,) = await rest.make_people(1)
    token = shorten(stack, person, lifetime_s=LIFETIME_S)
    devices = [
        await connect(url, token, device_id=f"d{number}", acks=False)
        for number, url in enumerate(stack.system.notify_urls)
    ]
    for device in devices:
        warned = await device.next("token_expiring")
        assert 0 <= warned["expires_in_s"] <= LIFETIME_S
    assert [await device.wait_closed() for device in devices] == [4401, 4401]
    # Nothing is shown after the end; it waits for whoever comes back with a good token.
    sent = await backend.send_to(person.id, "too late")
    again = await connect(stack.system.notify_urls[0], person.access, device_id="d0")
    assert (await again.next("notification"))["id"] == sent
    assert all(device.notifications == [] for device in devices)
    await again.close()
    expired = await connect(stack.system.notify_urls[1], token)
    assert await expired.wait_closed() in (4401, 4501)


@pytest.mark.req("D06", "X-13")
async def test_a_token_is_renewed_in_place_by_the_same_user_only(stack: Stack, rest: Rest, backend: Backend) -> None:
    person, other = await rest.make_people(2)
    first, second = stack.system.notify_urls
    token = shorten(stack, person, lifetime_s=LIFETIME_S)
    staying, stolen = await connect(first, token), await connect(second, token)
    for device in (staying, stolen):
        await device.next("token_expiring")
    await stolen.send(type="refresh", token=other.access, ref="theirs")
    assert await stolen.wait_closed() == 4501
    await staying.send(type="refresh", token=person.access, ref="mine")
    refreshed = await staying.next("refreshed")
    assert refreshed["ref"] == "mine"
    # Past the end of the first token: still there.
    await asyncio.sleep(LIFETIME_S + 1.5)
    sent = await backend.send_to(person.id, "still there")
    assert (await staying.next("notification"))["id"] == sent
    await staying.close()
