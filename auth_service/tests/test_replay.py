from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from auth_kit import make_user, with_settings
from django.core.management import CommandError, call_command
from pydantic import SecretStr
from test_identity_events import listening, run_in_thread, until

from auth_service import clock
from auth_service.identity_events.models import OutboxEvent
from auth_service.identity_events.outbox import do_mark_published, do_prune_events


def publish_all_but_the_last() -> None:
    for _ in range(5):
        make_user(password=None)
    do_mark_published([1, 2, 3, 4])


@pytest.mark.django_db(transaction=True)
async def test_kept_events_are_published_again_with_their_old_revisions(amqp_url: str) -> None:
    await run_in_thread(publish_all_but_the_last)

    def replay(**options: Any) -> None:
        with with_settings(amqp_url=SecretStr(amqp_url)):
            call_command("replay_identity_events", verbosity=0, **options)

    async with listening(amqp_url) as bodies:
        await run_in_thread(lambda: replay(from_revision=2))
        await until(lambda: len(bodies) == 3)
        await run_in_thread(lambda: replay(from_revision=1, to_revision=2))
        await until(lambda: len(bodies) == 5)
        await asyncio.sleep(0)
    # The fifth has not been published yet: it is the relay's.
    assert [body["revision"] for body in bodies] == [2, 3, 4, 1, 2]


def test_a_replay_without_a_broker_says_where_to_go_on(db: None) -> None:
    publish_all_but_the_last()
    with (
        with_settings(amqp_url=SecretStr("amqp://x:y@127.0.0.1:1/")),
        pytest.raises(CommandError, match="go on from 3"),
    ):
        call_command("replay_identity_events", from_revision=3, verbosity=0)


def test_published_events_are_kept_for_a_while(frozen: clock.FrozenClock, db: None) -> None:
    publish_all_but_the_last()
    frozen.advance(timedelta(days=7))
    assert do_prune_events(timedelta(days=7)) == 0
    frozen.advance(1)
    assert do_prune_events(timedelta(days=7)) == 4
    assert OutboxEvent.objects.get().revision == 5
