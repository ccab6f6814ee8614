"""One channel's worker: messages from its queue become attempts, attempts become outcomes, outcomes settle messages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from notification_service import failpoints, metrics
from notification_service.batching import Batcher
from notification_service.broker.consumer import Incoming
from notification_service.broker.publisher import Outcome as Published
from notification_service.broker.publisher import Publisher
from notification_service.broker.work import Settle, Work
from notification_service.channels.breakers import Breakers
from notification_service.channels.content import address_of, message_of, pending_of
from notification_service.channels.interface import Channel, Failure, FailureKind, SendFailed, Sent, reject
from notification_service.channels.judge import Judgement, Step, judge
from notification_service.channels.ladder import GiveUp, decide
from notification_service.channels.links import Links
from notification_service.channels.load import Loaded, find_suppressed, load_deliveries
from notification_service.channels.outcome import AttemptMade, Outcome
from notification_service.channels.planned import KeptDelivery, Reach
from notification_service.channels.ports import Gate, Pending, Rendered, Renderer, Unrenderable, Verdict
from notification_service.channels.queueing import HAS_TURN, Queueing, make_message
from notification_service.channels.rates import Asking, RateLimits
from notification_service.channels.receipts import Receipts, receipts_of
from notification_service.channels.record import Recorded, claim_attempts, record_outcomes
from notification_service.channels.slots import Reservation, RouteSlots
from notification_service.clock import Clock
from notification_service.contacts.secrets import SecretBox
from notification_service.db.engine import Database
from notification_service.dead_letters.announce import announce_dead_letters
from notification_service.errors import Unavailable
from shared_contracts import headers
from shared_contracts.delivery_state import DeliveryState
from shared_contracts.error_codes import Reason
from shared_contracts.topology import channel_queue, retry_queue

log = structlog.get_logger(__name__)

ATTEMPT_LIMIT: Final = timedelta(seconds=30)
"""For one attempt; HTTP calls have shorter limits of their own."""

PARKED: Final = (*[timedelta(seconds=1)] * 3, timedelta(seconds=10))
"""How long a message waits, in a queue, while its endpoint is busy: the first time, the second, and so on. Ten thousand
messages to an endpoint that hangs ask again a thousand times a second, not ten thousand."""

_PARKED_BEFORE: Final = "x-herald-parked"
_PARKED_FOR: Final = "x-herald-parked-for"
"""Header: the place it waits for. While there is none it waits on, which costs no question to the database."""

_BATCH: Final = 128
_SWEEP_GRACE: Final = timedelta(seconds=15)
_DATABASE_PAUSE: Final = timedelta(seconds=1)
_INTERRUPTED: Final = Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, "the attempt was interrupted")
_NOT_RENDERED: Final = Failure(FailureKind.TEMPORARY, Reason.TEMPLATE_ERROR, "the templates could not be read")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the workers of all channels use together."""

    database: Database
    publisher: Publisher
    queueing: Queueing
    receipts: Receipts
    renderer: Renderer
    gate: Gate
    limits: RateLimits
    links: Links
    box: SecretBox
    clock: Clock
    reach: Reach
    delays: tuple[timedelta, ...]
    breaker_threshold: int
    breaker_open_for: timedelta


@dataclass(slots=True)
class _Job:
    """One message under way."""

    message: Incoming
    user_id: UUID
    delivery_id: UUID
    attempt: int
    loaded: Loaded | None = None
    route: str = ""
    # Route, tenant and sender.
    place: tuple[str, str, str] | None = None
    reservation: Reservation | None = None
    verdict: Verdict | None = None
    rendered: Rendered | Unrenderable | None = None


@dataclass(slots=True)
class _Begun:
    """What is to be done about each message of a batch, once its transaction is committed."""

    starting: list[_Job] = field(default_factory=list)
    ended: list[tuple[_Job, Outcome]] = field(default_factory=list)
    parked: list[_Job] = field(default_factory=list)
    dropped: list[_Job] = field(default_factory=list)


class ChannelWorker:
    """Makes the attempts of one channel in this process.

    Attributes:
        most_at_once: Deliveries under way for which there is room.
    """

    def __init__(self, channel: Channel, shared: Shared) -> None:
        self.channel = channel
        self.breakers = Breakers(channel.name, threshold=shared.breaker_threshold, open_for=shared.breaker_open_for)
        self._shared = shared
        self._slots = RouteSlots(channel.concurrency_per_route)
        self._at_once = asyncio.Semaphore(channel.concurrency)
        # One account takes no more than its own part and the line before it; a channel of many endpoints all it can.
        is_one_account = 2 * channel.concurrency_per_route >= channel.concurrency
        self.most_at_once = min(channel.concurrency, self._slots.most_of_one) if is_one_account else channel.concurrency
        self._recorder: Batcher[Outcome, bool] = Batcher(self._record, max_batch=200, calls_at_once=1)
        self._under_way: set[asyncio.Task[None]] = set()
        self._beginning = 0

    @property
    def room(self) -> int:
        """How many more deliveries could be under way here; fewer than none while messages wait to be put back."""
        return self.most_at_once - len(self._under_way) - self._beginning

    @property
    def work(self) -> Work:
        """What this worker consumes: its queue, declared with its retry ladder."""
        name = self.channel.name
        steps = dict.fromkeys((*PARKED, *self._shared.delays))
        return Work(
            queues=(channel_queue(name), *(retry_queue(name, delay) for delay in steps)),
            prefetch=max(2 * _BATCH, 2 * self.channel.concurrency),
            batch_size=_BATCH,
            handle=self.handle,
            drain=self.drain,
        )

    async def handle(self, batch: Sequence[Incoming], settle: Settle) -> None:
        """Begin the attempts a batch asks for."""
        jobs = self._read_batch(batch, settle)
        if not jobs:
            return
        self._beginning += len(jobs)
        try:
            # One transaction: SQLite has one writer, and the gate may write (what quiet hours hold goes into a digest).
            async with self._shared.database.write() as connection:
                judged = await self._judge(connection, jobs)
                begun = await self._begin(connection, judged)
            await self._render(begun.starting)
        except BaseException:
            for job in jobs:
                _release(job)
            raise
        finally:
            self._beginning -= len(jobs)
        for job in begun.dropped:
            self._drop(job, settle)
        for job in begun.parked:
            self._spawn(self._park(job, settle))
        for job, outcome in begun.ended:
            self._spawn(self._settle(job, outcome, settle))
        for job in begun.starting:
            self._spawn(self._attempt(job, settle))

    def _read_batch(self, batch: Sequence[Incoming], settle: Settle) -> list[_Job]:
        """What can begin as far as the messages themselves tell."""
        jobs = []
        for message in batch:
            job = _read(message)
            if job is None:
                log.error("delivery_message_unreadable", queue=channel_queue(self.channel.name).name)
                settle(message)
            elif job.place is not None and not self._slots.has_place(*job.place):
                self._spawn(self._park(job, settle))
            else:
                jobs.append(job)
        return jobs

    async def drain(self) -> None:
        """Return when no attempt is under way."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    # --- before the attempt ---------------------------------------------------------------------------------------

    async def _judge(self, connection: AsyncConnection, jobs: list[_Job]) -> list[tuple[_Job, Judgement]]:
        shared, now = self._shared, self._shared.clock.now()
        loaded = await load_deliveries(connection, {(each.user_id, each.delivery_id) for each in jobs}, shared.box)
        suppressed = await find_suppressed(connection, loaded.values())
        judged = []
        for job in jobs:
            job.loaded = loaded.get(job.delivery_id)
            found = judge(
                job.loaded,
                attempt=job.attempt,
                is_redelivered=job.message.is_redelivered,
                repeats_are_harmless=self.channel.makes_repeats_harmless,
                is_suppressed=job.delivery_id in suppressed,
                require_verified=shared.reach.require_verified,
                now=now,
            )
            judged.append((job, found))
        pending = [(job, _pending(job)) for job, found in judged if found.step is Step.ATTEMPT]
        if pending:
            verdicts = await shared.gate.check(connection, [each for _, each in pending], now)
            for (job, _), verdict in zip(pending, verdicts, strict=True):
                job.verdict = verdict
        return judged

    async def _begin(self, connection: AsyncConnection, judged: list[tuple[_Job, Judgement]]) -> _Begun:
        begun = _Begun()
        reserved: list[_Job] = []
        seen: set[UUID] = set()
        for job, found in judged:
            if found.step is Step.DROP or job.delivery_id in seen:
                begun.dropped.append(job)
                continue
            seen.add(job.delivery_id)
            decided = self._hold_or_reserve(job) if found.step is Step.ATTEMPT else found
            if decided is None:
                reserved.append(job)
            elif isinstance(decided, Outcome):
                begun.ended.append((job, decided))
            elif decided.step is Step.PARK:
                begun.parked.append(job)
            else:
                begun.ended.append((job, _end_outcome(job, decided)))
        held = await self._hold_back(reserved)
        begun.ended += held
        waiting = {job.delivery_id for job, _ in held}
        claiming = [job for job in reserved if job.delivery_id not in waiting]
        mine = await self._claim(connection, claiming)
        for job in claiming:
            (begun.starting if job.delivery_id in mine else begun.dropped).append(job)
        return begun

    def _drop(self, job: _Job, settle: Settle) -> None:
        metrics.duplicates_suppressed.inc()
        _release(job)
        settle(job.message)

    def _hold_or_reserve(self, job: _Job) -> Outcome | Judgement | None:
        """None: go on, with a place at its route. Otherwise why not."""
        loaded = job.loaded
        assert loaded is not None
        verdict = job.verdict
        if verdict is not None and verdict.status is not None:
            return Outcome(
                loaded,
                verdict.status,
                reason=verdict.reason,
                rules=verdict.rules,
                not_before=verdict.not_before,
                retry_at=verdict.not_before,
            )
        routes = self.channel.routes(address_of(loaded))
        job.route = routes[0]
        job.place = (job.route, loaded.delivery.tenant, loaded.notification.sender.key)
        job.reservation = self._slots.try_reserve(*job.place)
        return Judgement(Step.PARK) if job.reservation is None else None

    async def _hold_back(self, jobs: list[_Job]) -> list[tuple[_Job, Outcome]]:
        """Those of these that are over a rate limit, each with its turn; they give their places back."""
        limited = [job for job in jobs if HAS_TURN not in job.message.headers and job.attempt == 1]
        turns = await self._shared.limits.reserve([self._ask_for_turn(job) for job in limited])
        now = self._shared.clock.now()
        held = []
        for job, turn in zip(limited, turns, strict=True):
            if not turn.wait:
                continue
            _release(job)
            assert job.loaded is not None
            at = now + turn.wait
            outcome = Outcome(
                job.loaded,
                DeliveryState.PENDING,
                reason=Reason.THROTTLED,
                not_before=at,
                retry_at=at,
                share=turn.share,
            )
            held.append((job, outcome))
        return held

    def _ask_for_turn(self, job: _Job) -> Asking:
        assert job.loaded is not None
        return Asking(self.channel.name, job.route, job.loaded.delivery.tenant, job.loaded.notification.sender.key)

    async def _claim(self, connection: AsyncConnection, jobs: list[_Job]) -> set[UUID]:
        wanted = [
            (job.user_id, job.delivery_id, job.attempt, job.loaded.delivery.attempts)
            for job in jobs
            if job.loaded is not None
        ]
        return await claim_attempts(connection, wanted, now=self._shared.clock.now())

    async def _render(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            rendered = await self._shared.renderer.render([_pending(job) for job in jobs])
        except Exception as error:
            # The attempts have begun: they fail, and are made again by the ladder.
            log.error("deliveries_not_rendered", deliveries=len(jobs), exc_info=error)  # noqa: TRY400
            return
        for job, each in zip(jobs, rendered, strict=True):
            job.rendered = each

    # --- the attempt ----------------------------------------------------------------------------------------------

    async def _attempt(self, job: _Job, settle: Settle) -> None:
        try:
            assert job.reservation is not None
            await job.reservation.wait()
            async with self._at_once:
                failpoints.reach("before_channel_send")
                outcome = await self._make_attempt(job)
        finally:
            _release(job)
        failpoints.reach("after_channel_send_before_ack")
        await self._settle(job, outcome, settle)

    async def _make_attempt(self, job: _Job) -> Outcome:
        loaded = job.loaded
        assert loaded is not None
        address = address_of(loaded)
        made: list[AttemptMade] = []
        failure: Failure | None = None
        if job.rendered is None:
            return self._decide(job, _NOT_RENDERED, made)
        try:
            prepared = self.channel.prepare(message_of(loaded, job.rendered, self._shared.links), address)
        except SendFailed as failed:
            return self._decide(job, failed.failure, made)
        except Exception as error:
            log.error("channel_prepare_failed", channel=self.channel.name, exc_info=error)  # noqa: TRY400
            return self._decide(job, reject(f"it could not be prepared ({type(error).__name__})").failure, made)
        for route in self.channel.routes(address):
            result = await self._send(job, prepared, route, made)
            if isinstance(result, Sent):
                return Outcome(
                    loaded,
                    DeliveryState.DELIVERED if result.is_delivered else DeliveryState.SENT,
                    attempt=job.attempt,
                    attempts=tuple(made),
                    provider_message_id=result.provider_message_id,
                )
            failure = result
            if failure.kind is not FailureKind.TEMPORARY or failure.disables_address:
                break
        assert failure is not None
        return self._decide(job, failure, made)

    async def _send(self, job: _Job, prepared: Any, route: str, made: list[AttemptMade]) -> Sent | Failure:
        clock = self._shared.clock
        started_at, started = clock.now(), clock.monotonic()
        entry = self.breakers.try_enter(route)
        if entry is None:
            failure = Failure(
                FailureKind.TEMPORARY, Reason.BREAKER_OPEN, "the provider failed repeatedly and is left alone for now"
            )
            made.append(AttemptMade(job.attempt, route, started_at, 0, "breaker_open", failure.reason, failure.detail))
            metrics.delivery_attempts.labels(self.channel.name, "breaker_open").inc()
            return failure
        result: Sent | Failure = _INTERRUPTED
        try:
            async with asyncio.timeout(ATTEMPT_LIMIT.total_seconds()):
                result = await self.channel.send(prepared, route)
        except SendFailed as error:
            result = error.failure
        except Exception as error:  # noqa: BLE001 - the channel says what it means
            result = self._classify(error)
        finally:
            # Also when cancelled: a probe that never leaves would keep the breaker half open for ever.
            self.breakers.leave(entry, failed=isinstance(result, Failure) and result.blames_provider)
        latency = clock.monotonic() - started
        latency_ms = round(latency * 1000)
        if isinstance(result, Sent):
            outcome = "sent"
            sent_id = result.provider_message_id
            made.append(AttemptMade(job.attempt, route, started_at, latency_ms, outcome, provider_message_id=sent_id))
        else:
            outcome = str(result.kind)
            made.append(AttemptMade(job.attempt, route, started_at, latency_ms, outcome, result.reason, result.detail))
        metrics.delivery_attempts.labels(self.channel.name, outcome).inc()
        metrics.delivery_seconds.labels(self.channel.name).observe(latency)
        return result

    def _classify(self, error: Exception) -> Failure:
        try:
            return self.channel.classify_error(error)
        except Exception as own:
            log.error("channel_classify_failed", channel=self.channel.name, exc_info=own)  # noqa: TRY400
            return Failure(FailureKind.UNKNOWN, Reason.PROVIDER_UNAVAILABLE, type(error).__name__)

    # --- after the attempt ----------------------------------------------------------------------------------------

    def _decide(self, job: _Job, failure: Failure, made: list[AttemptMade]) -> Outcome:
        loaded, now = job.loaded, self._shared.clock.now()
        assert loaded is not None
        if not made:
            # Nothing was sent: it failed before. The history says so all the same.
            made.append(AttemptMade(job.attempt, job.route, now, 0, str(failure.kind), failure.reason, failure.detail))
            metrics.delivery_attempts.labels(self.channel.name, str(failure.kind)).inc()
        decision = decide(
            failure,
            attempt=job.attempt,
            delays=self._shared.delays,
            repeats_are_harmless=self.channel.makes_repeats_harmless,
            chance=random.random(),  # noqa: S311 - no secret
        )
        if isinstance(decision, GiveUp):
            return Outcome(
                loaded,
                DeliveryState.FAILED,
                attempt=job.attempt,
                reason=decision.reason,
                error=failure.detail,
                attempts=tuple(made),
                disables_contact=failure.disables_address,
            )
        due = now + decision.delay
        in_table = decision.step is None
        return Outcome(
            loaded,
            DeliveryState.PENDING if in_table else DeliveryState.QUEUED,
            attempt=job.attempt,
            reason=failure.reason,
            error=failure.detail,
            attempts=tuple(made),
            not_before=due if in_table else None,
            retry_at=due if in_table else due + decision.delay * 0.2 + _SWEEP_GRACE,
            delay=decision.delay,
            step=decision.step,
        )

    async def _park(self, job: _Job, settle: Settle) -> None:
        before = job.message.headers.get(_PARKED_BEFORE, 0)
        wait = PARKED[min(before, len(PARKED) - 1)]
        assert job.place is not None
        extra = {**_turn_of(job), _PARKED_BEFORE: before + 1, _PARKED_FOR: "\n".join(job.place)}
        await self._publish_later(job, job.attempt, wait, wait, extra=extra)
        settle(job.message)

    async def _settle(self, job: _Job, outcome: Outcome, settle: Settle) -> None:
        is_applied = await self._record_until_done(outcome)
        failpoints.reach("after_record_before_ack")
        if is_applied and outcome.step is not None and outcome.delay is not None:
            await self._publish_later(job, job.attempt + 1, outcome.delay, outcome.step)
        settle(job.message)

    async def _record_until_done(self, outcome: Outcome) -> bool:
        while True:
            try:
                return await self._recorder.ask(outcome)
            except Unavailable:
                # The message stays with this worker; if it dies, the attempt's outcome is unknown to the next one.
                await self._shared.clock.sleep(_DATABASE_PAUSE)

    async def _publish_later(
        self, job: _Job, attempt: int, delay: timedelta, step: timedelta, extra: dict[str, Any] | None = None
    ) -> None:
        """Into a step of the ladder. Should RabbitMQ not take it, the scheduler finds the delivery overdue."""
        kept = KeptDelivery(job.delivery_id, job.user_id, self.channel.name)
        queue = retry_queue(self.channel.name, step).name
        message = make_message(kept, attempt=attempt, queue=queue, expiration=delay, **(extra or {}))
        if await self._shared.publisher.publish(message) is not Published.OK:
            log.warning("retry_not_queued", delivery_id=str(job.delivery_id), attempt=attempt)

    async def _record(self, outcomes: Sequence[Outcome]) -> list[bool]:
        shared = self._shared
        now = shared.clock.now()
        async with shared.database.write() as connection:
            recorded = await record_outcomes(connection, outcomes, now=now, reach=shared.reach)
        applied = {each.delivery_id for each in recorded.applied}
        self._spawn(self._tell(recorded, now))
        return [each.delivery_id in applied for each in outcomes]

    async def _tell(self, recorded: Recorded, now: datetime) -> None:
        """Receipts, dead letters and further channels, after the commit."""
        shared = self._shared
        shared.receipts.add(receipts_of(recorded.applied, now))
        if recorded.kept:
            await shared.queueing.publish(recorded.kept)
        if recorded.letters:
            letters, ids = zip(*recorded.letters, strict=True)
            await announce_dead_letters(shared.publisher, letters, ids)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self.channel.name}-delivery")
        self._under_way.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A bug: its message stays unsettled, comes again when this worker stops, and counts against the limit.
            log.error("delivery_task_failed", channel=self.channel.name, exc_info=error)


def _read(message: Incoming) -> _Job | None:
    try:
        body = orjson.loads(message.body)
        attempt = int(message.headers.get(headers.ATTEMPT, 1))
        job = _Job(message, UUID(body["user_id"]), UUID(body["delivery_id"]), attempt)
        if (parked_for := message.headers.get(_PARKED_FOR)) is not None:
            route, tenant, sender = parked_for.split("\n", 2)
            job.place = (route, tenant, sender)
        return job  # noqa: TRY300 - reads in one piece
    except (ValueError, KeyError, TypeError):
        return None


def _release(job: _Job) -> None:
    reservation, job.reservation = job.reservation, None
    if reservation is not None:
        reservation.release()


def _turn_of(job: _Job) -> dict[str, Any]:
    return {HAS_TURN: 1} if HAS_TURN in job.message.headers else {}


def _pending(job: _Job) -> Pending:
    assert job.loaded is not None
    return pending_of(job.loaded, job.attempt)


def _end_outcome(job: _Job, found: Judgement) -> Outcome:
    assert job.loaded is not None
    if found.step is Step.END_UNKNOWN:
        detail = "the worker ended while the provider was asked, and nobody knows whether it was sent"
        made = AttemptMade(
            job.attempt,
            "",
            job.loaded.delivery.last_attempt_at,
            0,
            str(FailureKind.UNKNOWN),
            Reason.PROVIDER_UNAVAILABLE,
            detail,
        )
        return Outcome(
            job.loaded,
            DeliveryState.FAILED,
            attempt=job.attempt,
            reason=Reason.PROVIDER_UNAVAILABLE,
            error=detail,
            attempts=(made,),
        )
    return Outcome(job.loaded, found.status, reason=found.reason)
