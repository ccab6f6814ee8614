from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from notification_service.event_types.entity import PLAIN_MESSAGE, EventType, Settings
from notification_service.identity.directory import Person
from notification_service.notifications.entity import EventTypeDefaults, Notification, Sender, make_notification
from notification_service.preferences.evaluate import Layer, Outcome
from notification_service.routing.content import Renderer, RenderProblem, make_broadcast_content, make_contents
from notification_service.routing.decide import Decided, Recipient, choose_channels, decide, decide_step
from notification_service.templates.entity import Source, Template, TemplateSet
from shared_contracts.requests import Channel, Kind, NotificationRequest, Recipients

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
TENANT = Layer("tenant", {"channels": {"sms": False}})


def person(number: int, **fields: Any) -> Person:
    values = {"tenant": "default", "is_active": True, "locale": "en", "timezone": "UTC", "username": f"u{number}"}
    return Person(UUID(int=number), **{**values, **fields})


def readers(count: int, *layers: Layer) -> list[Recipient]:
    return [Recipient(person(number), layers) for number in range(1, count + 1)]


def notification(**fields: Any) -> Notification:
    return make_notification(
        NotificationRequest(**{"event_type": "order", "recipients": Recipients(all=True), **fields}),
        notification_id=UUID(int=99),
        kind=Kind.EVENT,
        sender=Sender(),
        now=NOW,
        defaults=EventTypeDefaults(),
    )


def order(**fields: Any) -> EventType:
    return EventType(**{"tenant": "default", "code": "order", "name": "Order", **fields})


def run(recipients: list[Recipient], type_: EventType | None = None, **fields: Any) -> Decided:
    return decide(notification(**fields), type_ or order(), recipients, throttled=fields.pop("throttled", ()), now=NOW)


def test_the_ordinary_is_not_recorded() -> None:
    decided = run(readers(3))
    assert (len(decided.in_app), decided.outgoing, decided.records, decided.record_of) == (3, [], [], {})


def test_each_outcome_is_recorded_once_and_users_beyond_the_first_are_numbered() -> None:
    own = Recipient(person(9), (Layer("user", {"channels": {"email": False}}), TENANT))
    both = (Channel.IN_APP, Channel.EMAIL)
    decided = run([*readers(3, TENANT), own], channels=both)
    assert [[each["outcome"] for each in record] for record in decided.records] == [
        ["sent", "sent"],
        ["sent", "suppressed"],
    ]
    assert decided.record_of == {UUID(int=9): 1}
    assert [(each.user_id.int, each.reason) for each in decided.outgoing][-1] == (9, "channel_off")


def test_time_zones_divide_only_where_they_matter() -> None:
    quiet = Layer("tenant", {"quiet_hours": {"start": "12:00", "end": "13:00"}})
    tokyo = Recipient(person(5, timezone="Asia/Tokyo"), (quiet,))
    decided = run([*readers(2, quiet), tokyo], channels=(Channel.EMAIL,))
    assert [each.reason for each in decided.outgoing] == ["quiet_hours", "quiet_hours", None]
    assert [each.user_id.int for each in decided.collected] == [1, 2]


def test_what_is_throttled_says_so_and_what_is_off_stays_off() -> None:
    off = Recipient(person(2), (Layer("user", {"channels": {"in_app": False}}),))
    first = Recipient(person(1))
    decided = decide(notification(), order(), [first, off], throttled={first.person.id, off.person.id}, now=NOW)
    assert [each.reason for each in decided.outgoing] == ["throttled", "channel_off"]


def test_channels_of_the_escalation_wait() -> None:
    plan = {"steps": [{"after_seconds": 1, "channels": ["email"]}]}
    decided = run(readers(1), order(escalation=plan), channels=(Channel.IN_APP, Channel.EMAIL))
    assert (len(decided.in_app), decided.outgoing, decided.escalating) == (1, [], [UUID(int=1)])
    muted = [Recipient(person(1), (Layer("user", {"channels": {"in_app": False}}),))]
    assert run(muted, order(escalation=plan)).escalating == []


def test_a_category_of_the_request_counts() -> None:
    muted = [Recipient(person(1), (Layer("user", {"categories": {"vip": {"in_app": False}}}),))]
    assert run(muted, category="vip").outgoing[0].reason == "category_off"
    assert run(muted).outgoing == []


def test_channels_asked_for_are_added() -> None:
    asked = (Layer("user", {"event_types": {"order": {"email": True}}}),)
    assert choose_channels(notification(), order(), asked) == (Channel.IN_APP, Channel.EMAIL)
    assert choose_channels(notification(), order(), ()) == (Channel.IN_APP,)
    assert choose_channels(notification(channels=(Channel.SMS,)), order(), asked) == (Channel.SMS,)


def test_a_piece_goes_on_with_the_records_of_those_before() -> None:
    first = decide(notification(), order(), readers(1), throttled=(), now=NOW, records=[])
    assert len(first.records) == 1
    muted = [Recipient(person(7), (Layer("user", {"channels": {"in_app": False}}),))]
    second = decide(notification(), order(), muted, throttled=(), now=NOW, records=first.records)
    assert (len(second.records), second.record_of) == (2, {UUID(int=7): 1})


def test_a_step_is_urgent_enough_not_to_be_collected() -> None:
    daily = Recipient(person(1), (Layer("user", {"digest": {"email": "daily"}, "channels": {"sms": False}}),))
    found = decide_step(notification(), order(), [Channel.EMAIL, Channel.SMS], daily, NOW)
    assert [decision.outcome for _, decision in found] == [Outcome.SEND, Outcome.OFF]


def test_a_step_asks_for_the_category_that_routing_asked_for() -> None:
    reader = Recipient(person(1), (Layer("user", {"categories": {"sales": {"email": False}}}),))
    for sent, outcome in ((notification(category="sales"), Outcome.OFF), (notification(), Outcome.SEND)):
        ((_, step),) = decide_step(sent, order(category="orders"), [Channel.EMAIL], reader, NOW)
        assert step.outcome is outcome


@pytest.mark.req("X-10")
def test_quiet_hours_silence_the_inbox_and_the_trace_says_so() -> None:
    quiet = Layer("user", {"quiet_hours": {"enabled": True, "start": "11:00", "end": "13:00"}})
    decided = run([Recipient(person(1), (quiet,)), Recipient(person(2))])
    assert [reader.person.id for reader in decided.in_app] == [UUID(int=1), UUID(int=2)]
    assert decided.silent == {UUID(int=1)}
    (entry,) = decided.records[0]
    assert (entry["silent"], [rule["rule"] for rule in entry["rules"]]) == (True, ["default_enabled", "quiet_hours"])
    assert run([Recipient(person(1), (quiet,))], priority="critical").silent == set()


# --- texts ------------------------------------------------------------------------------------------------------------


class Fallbacks:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def renderer(fallbacks: Fallbacks | None = None, **texts: str) -> Renderer:
    templates = {
        ("order", "in_app", locale.replace("_", "-")): Template(Source(text, "body"), locale.replace("_", "-"))
        for locale, text in texts.items()
    }
    return Renderer(TemplateSet("en", templates), Settings(), lambda: 0.0, fallbacks or Fallbacks())


def test_one_text_for_a_language_and_the_first_is_the_notifications_own() -> None:
    people = [*readers(2), Recipient(person(3, locale="de-CH")), Recipient(person(4, locale="fr"))]
    fallbacks = Fallbacks()
    contents = make_contents(notification(), order(), people, renderer(fallbacks, en="Hi", de="Hallo"))
    assert [(shown.title, shown.variant, len(ids)) for shown, ids in contents.groups] == [
        ("Hi", None, 2),
        ("Hallo", "de-CH", 1),
        ("Hi", "fr", 1),
    ]
    assert (contents.base.title, contents.base.rendered, fallbacks.count) == ("Hi", 3, 2)
    pieces = make_contents(notification(), order(), people, renderer(en="Hi"), is_whole=False)
    assert [shown.variant for shown, _ in pieces.groups] == ["en", "de-CH", "fr"]
    assert pieces.base.title is None


def test_texts_that_name_the_user_or_a_time_divide_further() -> None:
    people = [Recipient(person(1)), Recipient(person(2, timezone="Asia/Tokyo"))]
    named = make_contents(notification(), order(), people, renderer(en="{{ user.username }}"))
    assert [(shown.title, shown.variant) for shown, _ in named.groups] == [
        ("u1", f"user:{UUID(int=1)}"),
        ("u2", f"user:{UUID(int=2)}"),
    ]
    alone = make_contents(notification(), order(), people[:1], renderer(en="{{ user.username }}"))
    assert alone.groups[0][0].variant is None
    timed = renderer(en="{{ '2026-01-01T20:00:00Z' | date }}")
    found = make_contents(notification(), order(), people, timed)
    assert [(shown.title, shown.variant) for shown, _ in found.groups] == [
        ("Jan 1, 2026", None),
        ("Jan 2, 2026", "en Asia/Tokyo"),
    ]


def test_what_cannot_be_rendered_is_a_problem_of_those_who_would_read_it() -> None:
    people = [Recipient(person(1)), Recipient(person(2, locale="de"))]
    contents = make_contents(notification(), order(), people, renderer(en="{{ data.x }}", de="gut"))
    assert contents.problems == [
        RenderProblem((UUID(int=1),), contents.problems[0].reason, contents.problems[0].detail)
    ]
    assert contents.problems[0].reason == "missing_variable"
    assert [shown.title for shown, _ in contents.groups] == ["gut"]
    wrong = make_contents(notification(data={"x": "y"}), order(), people[:1], renderer(en="{{ data.x | date }}"))
    assert wrong.problems[0].reason == "template_error"


def test_messages_and_what_the_request_says_are_left_alone() -> None:
    message = notification(event_type=None, title="T")
    assert make_contents(message, PLAIN_MESSAGE, readers(1), renderer()).groups == [(message, [UUID(int=1)])]
    assert make_contents(message, PLAIN_MESSAGE, [], renderer()).groups == []
    given = make_contents(notification(locale="de", title="T"), order(), readers(1), renderer(de="Hallo"))
    assert (given.base.title, given.base.body, given.base.rendered) == ("T", "body", 2)


def test_a_broadcast_has_one_text() -> None:
    shown = make_broadcast_content(notification(), order(), renderer(en="Hi", de="Hallo"))
    assert isinstance(shown, Notification)
    assert shown.title == "Hi"
    german = make_broadcast_content(notification(locale="de"), order(), renderer(en="Hi", de="Hallo"))
    assert isinstance(german, Notification)
    assert german.title == "Hallo"
    for text, reason in (("{{ user.username }}", "missing_variable"), ("{{ data | date }}", "template_error")):
        problem = make_broadcast_content(notification(), order(), renderer(en=text))
        assert isinstance(problem, RenderProblem)
        assert problem.reason == reason
    message = notification(event_type=None, title="T")
    assert make_broadcast_content(message, PLAIN_MESSAGE, renderer()) is message
