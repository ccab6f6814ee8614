"""Requests that name users: deleted when meant for the erased alone, rid of the name when others got them too."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import orjson
from mail_box import START, Mail
from sqlalchemy import select

from notification_service.db.engine import Database
from notification_service.dead_letters.models import dead_letters
from notification_service.dead_letters.personal_data import PERSONAL_DATA as DEAD_LETTERS
from notification_service.dead_letters.repository import DeadLetter, insert_dead_letters
from notification_service.identity.personal_data import PersonalData, Subject, leave_out
from notification_service.mailbox.models import items
from notification_service.mailbox.personal_data import PERSONAL_DATA as MAILBOX
from notification_service.notifications.models import notification_contents, notifications
from notification_service.notifications.personal_data import PERSONAL_DATA as NOTIFICATIONS
from shared_contracts.error_codes import Reason
from shared_contracts.requests import Recipients


async def erase(database: Database, part: PersonalData, subject: Subject) -> dict[str, int]:
    async with database.write() as connection:
        return dict(await part.erase(connection, subject))


async def rows_of(database: Database, table: Any) -> dict[UUID, Any]:
    async with database.read() as connection:
        return {row.id: row for row in await connection.execute(select(table))}


def test_nobody_left() -> None:
    assert leave_out({"users": ["a"], "groups": [], "roles": [], "all": False}, ("a",)) is None
    assert leave_out({"users": ["a", "b"]}, ("a",)) == {"users": ["b"]}
    assert leave_out({"users": ["a"], "groups": ["g"]}, ("a",)) == {"users": [], "groups": ["g"]}
    assert leave_out({"all": True}, ("a",)) == {"users": [], "all": True}


async def test_notifications(database: Database) -> None:
    mail = Mail(database)
    gone, other = await mail.make_users(2)
    subject = Subject(gone, "default", "c-1")
    alone = mail.make_notification(recipients=Recipients(users=(str(gone),)))
    by_external = mail.make_notification(recipients=Recipients(users=("ext:c-1", str(gone))))
    shared = mail.make_notification(recipients=Recipients(users=(str(gone), str(other))))
    grouped = mail.make_notification(recipients=Recipients(users=(str(gone),), groups=(uuid4(),)))
    foreign = mail.make_notification(recipients=Recipients(users=("ext:c-11", str(other))))
    async with database.write() as connection:
        await mail._store(connection, [alone, by_external, shared, grouped, foreign])
        values = {"sender_id": gone, "sender_name": "Ada", "title": "Ada"}
        await connection.execute(notifications.update().where(notifications.c.id == foreign.id).values(**values))
        problems = [{"recipient": str(gone), "reason": "recipient_inactive"}, {"recipient": "ext:x", "reason": "y"}]
        await connection.execute(
            notifications.update().where(notifications.c.id == shared.id).values(problems=problems)
        )

    counts = await erase(database, NOTIFICATIONS, subject)

    left = await rows_of(database, notifications)
    assert left.keys() == {shared.id, grouped.id, foreign.id}
    assert left[shared.id].recipients["users"] == [str(other)]
    assert left[shared.id].problems == [{"recipient": "ext:x", "reason": "y"}]
    assert left[grouped.id].recipients["users"] == []
    assert left[foreign.id].recipients["users"] == ["ext:c-11", str(other)]
    row = left[foreign.id]
    assert (row.sender_id, row.sender_name, row.title) == (None, None, "Message")
    assert counts == {"notifications": 2, "notifications_shared": 2, "notifications_sent": 1, "decisions": 0}


async def test_texts_rendered_for_one_person_go_with_the_item(database: Database) -> None:
    mail = Mail(database)
    gone, other = await mail.make_users(2)
    (item, _) = await mail.keep(gone, other)
    notification_id = item.notification.id
    async with database.write() as connection:
        for user_id, variant in ((gone, "own"), (other, "de")):
            await connection.execute(items.update().where(items.c.user_id == user_id).values(variant=variant))
        for variant in ("own", "de"):
            values = {"notification_id": notification_id, "variant": variant, "title": variant, "body": "b"}
            await connection.execute(notification_contents.insert().values(**values))

    counts = await erase(database, MAILBOX[0], Subject(gone, "default"))

    async with database.read() as connection:
        variants = (await connection.execute(select(notification_contents.c.variant))).scalars().all()
        owners = (await connection.execute(select(items.c.user_id))).scalars().all()
    assert (list(variants), list(owners)) == (["de"], [other])
    assert counts["contents"] == 1


async def test_dead_letters(database: Database) -> None:
    gone, other = uuid4(), uuid4()
    subject = Subject(gone, "default", "c-1")

    def letter(payload: Any, detail: str = "") -> DeadLetter:
        body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
        return DeadLetter(Reason.UNKNOWN_RECIPIENT, detail, body, exchange="e", routing_key="k")

    letters = [
        letter({"recipients": {"users": [str(gone)]}, "title": "a"}),
        letter({"recipients": {"users": [str(gone), str(other)]}, "title": "b"}, f"no such recipient: {gone}"),
        letter({"recipients": {"users": ["ext:c-1", str(other)]}, "title": "c"}),
        letter({"recipients": {"users": [str(other)]}, "title": "d", "data": {"about": str(gone)}}),
        letter(b"not json " + str(gone).encode()),
        letter({"recipients": {"users": [str(other)]}, "title": "e"}),
        letter(b"\xff\xfe"),
        letter({"recipients": {"users": ["ext:c-11"]}}, "no such recipient: ext:c-11, ext:c-1"),
        letter({"recipients": {"users": ["ext:c-11"]}}, "no such recipient: ext:c-11"),
    ]
    async with database.write() as connection:
        ids = await insert_dead_letters(connection, letters, now=START)

    counts = await erase(database, DEAD_LETTERS, subject)

    left = await rows_of(database, dead_letters)
    assert left.keys() == {ids[1], ids[2], *ids[5:]}
    assert orjson.loads(left[ids[1]].payload) == {"recipients": {"users": [str(other)]}, "title": "b"}
    assert left[ids[1]].detail == "no such recipient: [erased]"
    assert orjson.loads(left[ids[2]].payload)["recipients"]["users"] == [str(other)]
    assert counts == {"dead_letters": 3, "dead_letters_shared": 3}
    assert left[ids[7]].detail == "no such recipient: ext:c-11, [erased]"
    assert await erase(database, DEAD_LETTERS, subject) == {"dead_letters": 0, "dead_letters_shared": 0}
