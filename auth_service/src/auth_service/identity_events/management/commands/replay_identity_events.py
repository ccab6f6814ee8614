from __future__ import annotations

import asyncio
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from typing_extensions import override

from auth_service.identity_events.outbox import find_published
from auth_service.identity_events.relay import BATCH_SIZE, BrokerUnavailable, EventPublisher


class Command(BaseCommand):
    help = "Publish kept identity events again, with their old revisions. Consumers skip revisions they have seen."

    @override
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from-revision", type=int, required=True, help="The first one to publish again.")
        parser.add_argument("--to-revision", type=int, help="The last one; left out: all that have been published.")

    @override
    def handle(self, *args: Any, from_revision: int, to_revision: int | None, **options: Any) -> None:
        """Publish in batches, in order, each confirmed before the next.

        Raises:
            CommandError: RabbitMQ does not confirm; says from which revision to go on.
        """
        publisher = EventPublisher(settings.HERALD.amqp_url.get_secret_value())
        count, following = 0, from_revision

        async def publish_all(batch: list[Any]) -> None:
            if await publisher.publish(batch) < len(batch):
                raise BrokerUnavailable("not all were confirmed")

        with asyncio.Runner() as runner:
            while events := find_published(from_revision=following, to_revision=to_revision, limit=BATCH_SIZE):
                try:
                    runner.run(publish_all(events))
                except BrokerUnavailable as error:
                    raise CommandError(f"RabbitMQ does not confirm ({error}); go on from {following}") from None
                count += len(events)
                following = events[-1].revision + 1
            runner.run(publisher.close())
        self.stdout.write(f"{count} events published again, the next revision would be {following}")
