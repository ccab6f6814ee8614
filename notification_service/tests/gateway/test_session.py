"""The session: who, what, how fast, how long. The streams are the follower's (test_follower)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from builders import (
    CONNECTION,
    COUNTS,
    OTHER,
    SESSION,
    USER,
    WALL_CLOCK,
    close_code,
    frames,
    make_cursor,
    make_identity,
    make_info,
    make_page,
    open_session,
    others,
    position,
    types,
)

from notification_service.gateway.effects import (
    Acked,
    AskPreferences,
    ChangeItems,
    Close,
    Effect,
    Fetch,
    FollowPresence,
    Identify,
    IdentifyAgain,
    SendMessage,
    SendPing,
    SendText,
    ShowPresence,
    UnfollowPresence,
    WakeAfter,
)
from notification_service.gateway.session import (
    DRAIN_NOTICE_S,
    MAX_EARLY,
    MAX_EARLY_BYTES,
    MAX_MALFORMED,
    Limits,
    Phase,
    Session,
)
from notification_service.notifications.pages import FrameType
from notification_service.presence.board import PresenceView
from shared_contracts.error_codes import ErrorCode
from shared_contracts.ws.close_codes import CloseCode
from shared_contracts.ws.frames import SERVER_FRAMES, AckMode, Hello, PresenceStatus


def new_session(now: float = 0.0) -> Session:
    return Session(CONNECTION, Limits(), now)


def item(session: Session, seq: int, now: float = 0.0) -> None:
    session.on_item(seq, FrameType.NOTIFICATION, b'{"seq":%d,"id":"n"}' % seq, is_repeat=False, now=now)


# --- authentication ------------------------------------------------------------------------------------------------


def test_hello_is_identified() -> None:
    session = new_session()
    assert session.on_text(b'{"type":"hello","token":"t","device_id":"tv"}', 0.0) == [
        Identify(Hello(token="t", device_id="tv"))
    ]
    assert session.phase is Phase.IDENTIFYING


def test_welcome_says_who_where_and_how() -> None:
    session, effects = open_session(make_info(top_seq=2))
    welcome, *_ = frames(effects)
    SERVER_FRAMES["welcome"].model_validate(welcome)
    assert welcome == {
        "type": "welcome",
        "protocol": 1,
        "connection_id": str(CONNECTION),
        "session_id": str(SESSION),
        "user_id": str(USER),
        "device_id": "phone",
        "roles": ["user"],
        "position": position(0),
        "resume": "fresh",
        "counts": {"unread": 3, "unseen": 1},
        "heartbeat_interval_ms": 20_000,
        "token_expires_at": "2026-01-02T03:19:05.000Z",
        "server_time": "2026-01-02T03:04:05.000Z",
        "max_unacked": 64,
    }
    assert others(effects) == [Fetch(0, 0, 64)]
    assert session.is_open


def test_welcome_answers_the_hello_by_its_ref() -> None:
    session = new_session()
    [wanted] = session.on_text(b'{"type":"hello","token":"t","ref":"1"}', 0.0)
    assert isinstance(wanted, Identify)
    effects = session.on_identified(make_identity(), wanted.hello, make_info(), now=0.0, wall_clock=WALL_CLOCK)
    assert (frames(effects)[0]["type"], frames(effects)[0]["ref"]) == ("welcome", "1")


def test_without_a_device_id_the_session_is_the_device() -> None:
    session, _ = open_session(device_id=None)
    assert session.device_id == str(SESSION)


def test_a_position_of_the_client_is_an_acknowledgement() -> None:
    _, effects = open_session(make_info(top_seq=5, cursor=make_cursor(1)), requested=position(4))
    assert others(effects) == [Acked(4, 0), Fetch(4, 0, 64)]
    assert frames(effects)[0]["resume"] == "recovered"


def test_a_reset_names_reason_counts_and_the_new_position() -> None:
    session, effects = open_session(make_info(top_seq=5), requested="nonsense")
    assert types(effects) == ["welcome", "reset", "synced"]
    reset = frames(effects)[1]
    SERVER_FRAMES["reset"].model_validate(reset)
    assert (reset["reason"], reset["position"]) == ("unknown_position", position(5))
    assert others(effects) == [Acked(5, 0)]
    assert session.follower.is_live


@pytest.mark.parametrize(("is_expired", "code"), [(True, 4401), (False, 4501)])
def test_refused_tokens_close(*, is_expired: bool, code: int) -> None:
    session = new_session()
    session.identify(Hello(token="t"))
    assert close_code(session.on_refused(is_expired=is_expired)) == code


@pytest.mark.req("D05")
@pytest.mark.parametrize("text", [b'{"type":"ping"}', b"{", b'{"type":"ack","position":"p"}', b'{"type":"hello"}'])
def test_any_other_first_frame_breaks_the_protocol(text: bytes) -> None:
    assert close_code(new_session().on_text(text, 0.0)) == 4500


def test_frames_before_the_welcome_are_read_after_it() -> None:
    session = new_session()
    hello = Hello(token="t")
    session.identify(hello)
    assert session.on_text(b'{"type":"ping","ref":"1"}', 0.0) == []
    assert session.on_text(b'{"type":"hello","token":"t"}', 0.0) == []
    effects = session.on_identified(make_identity(), hello, make_info(), now=1.0, wall_clock=WALL_CLOCK)
    assert types(effects) == ["welcome", "synced", "pong", "error"]


@pytest.mark.parametrize(("count", "size"), [(MAX_EARLY + 1, 10), (2, MAX_EARLY_BYTES)])
def test_too_much_before_the_welcome_breaks_the_protocol(count: int, size: int) -> None:
    session = new_session()
    session.identify(Hello(token="t"))
    codes = [close_code(session.on_text(b"x" * size, 0.0)) for _ in range(count)]
    assert codes == [None] * (count - 1) + [4500]


@pytest.mark.req("D21")
def test_an_unknown_protocol_version_is_named_and_closed() -> None:
    effects = new_session().on_text(b'{"type":"hello","token":"t","protocol":2,"ref":"r"}', 0.0)
    (error,) = frames(effects)
    assert (error["code"], error["ref"]) == ("unsupported_protocol", "r")
    assert close_code(effects) == 4500


@pytest.mark.req("D04", "D19")
def test_only_who_has_not_said_who_it_is_runs_out_of_time() -> None:
    silent, waiting = new_session(), new_session()
    waiting.identify(Hello(token="t"))
    assert silent.on_tick(9.9) == waiting.on_tick(39.9) == []
    assert close_code(silent.on_tick(10.0)) == 4408
    assert close_code(waiting.on_tick(40.0)) == 1013


def test_an_identification_that_comes_too_late_is_ignored() -> None:
    session = new_session()
    hello = Hello(token="t")
    session.identify(hello)
    session.on_tick(40.0)
    assert session.on_identified(make_identity(), hello, make_info(), now=11.0, wall_clock=WALL_CLOCK) == []


# --- frames --------------------------------------------------------------------------------------------------------


def test_commands_become_effects() -> None:
    session, _ = open_session()
    assert session.on_text(f'{{"type":"read","ids":["{USER}"],"ref":"r"}}'.encode(), 0.0) == [
        ChangeItems("read", (USER,), "r")
    ]
    assert session.on_text(b'{"type":"seen","all":true}', 0.0) == [ChangeItems("seen", None, None)]
    assert session.on_text(b'{"type":"refresh","token":"new","ref":"r"}', 0.0) == [IdentifyAgain("new", "r")]
    (sent,) = session.on_text(f'{{"type":"send","to":{{"user":"{OTHER}"}},"body":"hi"}}'.encode(), 0.0)
    assert isinstance(sent, SendMessage)
    assert sent.frame.body == "hi"


def test_ping_is_answered() -> None:
    session, _ = open_session()
    assert frames(session.on_text(b'{"type":"ping","ref":"r"}', 0.0)) == [{"type": "pong", "ref": "r"}]


def test_a_second_hello_is_an_error() -> None:
    session, _ = open_session()
    (error,) = frames(session.on_text(b'{"type":"hello","token":"t","ref":"a"}', 0.0))
    assert (error["code"], error["ref"]) == ("invalid_frame", "a")
    SERVER_FRAMES["error"].model_validate(error)


def test_preferences_are_asked_for_and_answered_with_the_ref() -> None:
    session, _ = open_session()
    assert session.on_text(b'{"type":"preferences.get","ref":"b"}', 0.0) == [AskPreferences(None, "b")]
    wanted = session.on_text(b'{"type":"preferences.patch","preferences":{"channels":{"email":false}}}', 0.0)
    assert wanted == [AskPreferences({"channels": {"email": False}}, None)]
    (answer,) = frames(session.on_preferences({"locale": "de"}, "b"))
    assert answer == {"type": "preferences", "preferences": {"locale": "de"}, "ref": "b"}
    session.close(CloseCode.RESTARTING, "")
    assert session.on_preferences({}, None) == []


@pytest.mark.req("D11")
def test_malformed_frames_are_answered_and_then_ended() -> None:
    session, _ = open_session()
    for _ in range(MAX_MALFORMED - 1):
        effects = session.on_text(b"{", 0.0)
        assert [frame["code"] for frame in frames(effects)] == ["invalid_json"]
        assert close_code(effects) is None
    effects = session.on_text(b"[]", 0.0)
    assert [frame["code"] for frame in frames(effects)] == ["invalid_frame"]
    assert close_code(effects) == 4500


@pytest.mark.req("D13")
def test_too_many_frames_are_ended_and_acknowledgements_are_free() -> None:
    session, _ = open_session()
    for seq in range(1, 400):
        item(session, seq)
        session.on_text(f'{{"type":"ack","position":"{position(seq)}"}}'.encode(), 0.0)
    assert session.is_open
    codes = [close_code(session.on_text(b'{"type":"ping"}', 0.0)) for _ in range(101)]
    assert codes == [None] * 100 + [4429]


@pytest.mark.req("D13")
@pytest.mark.parametrize("text", [position(1), position(9), "nonsense"])
def test_acknowledgements_that_say_nothing_new_are_not_free_without_end(text: str) -> None:
    session, _ = open_session()
    item(session, 1)
    ack = f'{{"type":"ack","position":"{text}"}}'.encode()
    session.on_text(f'{{"type":"ack","position":"{position(1)}"}}'.encode(), 0.0)
    codes = [close_code(session.on_text(ack, 0.0)) for _ in range(1_001)]
    assert codes == [None] * 1_000 + [4429]


def test_acknowledging_a_window_twice_is_no_flood() -> None:
    session, _ = open_session()
    for seq in range(1, 2_001):
        item(session, seq)
        for _ in range(2):
            assert session.is_open
            session.on_text(f'{{"type":"ack","position":"{position(seq)}"}}'.encode(), seq / 500)
    assert session.is_open


def test_the_allowance_returns_with_time() -> None:
    session, _ = open_session()
    for second in range(20):
        for _ in range(50):
            assert close_code(session.on_text(b'{"type":"ping"}', float(second))) is None


def test_acknowledgements_move_the_position() -> None:
    session, _ = open_session()
    item(session, 1)
    item(session, 2)
    assert session.on_text(f'{{"type":"ack","position":"{position(1)}"}}'.encode(), 0.0) == [Acked(1, 0)]
    assert session.on_text(f'{{"type":"ack","position":"{position(1)}"}}'.encode(), 0.0) == []


@pytest.mark.parametrize("text", ["nonsense", position(9), position(0, 1), position(1, epoch="deadbeef")])
def test_positions_that_were_not_given_out_are_refused(text: str) -> None:
    session, _ = open_session()
    item(session, 1)
    for command in ("ack", "sync"):
        (error,) = frames(session.on_text(f'{{"type":"{command}","position":"{text}","ref":"r"}}'.encode(), 0.0))
        assert (error["code"], error["ref"]) == ("invalid_position", "r")


def test_sync_goes_back() -> None:
    session, _ = open_session()
    item(session, 1)
    item(session, 2)
    assert session.on_text(f'{{"type":"sync","position":"{position(1)}"}}'.encode(), 0.0) == [Fetch(1, 0, 64)]
    assert types(session.on_page(make_page([2], seq=2), 0.0)) == ["notification", "synced"]


# --- refresh -------------------------------------------------------------------------------------------------------


def test_a_refresh_moves_the_expiry_and_tells_changed_rights() -> None:
    session, _ = open_session()
    later = make_identity(expires_at=WALL_CLOCK + timedelta(seconds=2000), roles=("user", "staff"))
    effects = session.on_refreshed(later, "r", now=100.0, wall_clock=WALL_CLOCK + timedelta(seconds=100))
    refreshed, rights = frames(effects)
    assert (refreshed["type"], refreshed["ref"], rights["roles"]) == ("refreshed", "r", ["user", "staff"])
    session.on_heard(1990.0)
    assert close_code(session.on_tick(1999.0)) is None


def test_a_refresh_with_the_same_rights_says_nothing_of_them() -> None:
    session, _ = open_session()
    assert types(session.on_refreshed(make_identity(), None, now=0.0, wall_clock=WALL_CLOCK)) == ["refreshed"]


@pytest.mark.req("D06")
def test_another_users_token_ends_the_connection() -> None:
    session, _ = open_session()
    effects = session.on_refreshed(make_identity(user_id=OTHER), None, now=0.0, wall_clock=WALL_CLOCK)
    assert close_code(effects) == 4501
    assert session.on_refreshed(make_identity(), None, now=0.0, wall_clock=WALL_CLOCK) == []


# --- answers to commands -------------------------------------------------------------------------------------------


def change(session: Session, seq: int | None, ref: str | None = "r") -> list[dict[str, Any]]:
    body = b'{"state":"read","seq":%d}' % seq if seq is not None else None
    effects = session.on_items_changed(seq=seq, body=body, label="read", counts=COUNTS, ref=ref, now=0.0)
    return frames(effects)


def test_a_change_is_answered_in_the_stream_with_the_ref() -> None:
    session, _ = open_session()
    (frame,) = change(session, 1)
    assert (frame["type"], frame["seq"], frame["ref"], frame["position"]) == ("state", 1, "r", position(1))
    # The copy from the queue is known.
    assert session.on_item(1, FrameType.STATE, b'{"seq":1}', is_repeat=False, now=0.0) == []


def test_a_change_without_a_ref_has_none() -> None:
    session, _ = open_session()
    (frame,) = change(session, 1, ref=None)
    assert "ref" not in frame


def test_a_change_out_of_its_turn_is_answered_without_moving_the_position() -> None:
    session, _ = open_session()
    (answer,) = change(session, 3)
    assert (answer["ref"], answer["position"]) == ("r", position(0))
    item(session, 1)
    effects = session.on_item(2, FrameType.NOTIFICATION, b'{"seq":2}', is_repeat=False, now=0.0)
    assert [frame["seq"] for frame in frames(effects)] == [2, 3]


def test_what_was_like_that_already_is_answered_too() -> None:
    session, _ = open_session()
    (answer,) = change(session, None)
    assert (answer["ids"], answer["ref"], answer["counts"]) == ([], "r", {"unread": 3, "unseen": 1})


def test_sent_and_failed_commands_repeat_the_ref() -> None:
    session, _ = open_session()
    assert frames(session.on_message_sent(OTHER, "r")) == [{"type": "sent", "id": str(OTHER), "ref": "r"}]
    (error,) = frames(session.on_command_failed(ErrorCode.UNAVAILABLE, "later", "r"))
    assert (error["code"], error["temporary"], error["ref"]) == ("unavailable", True, "r")
    session.close(CloseCode.PROTOCOL_BROKEN, "x")
    assert change(session, 1) == []
    assert session.on_message_sent(OTHER, "r") == []
    assert session.on_command_failed(ErrorCode.UNAVAILABLE, "later", "r") == []


# --- time ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("D06")
def test_expiry_is_announced_once_and_then_enforced_on_a_silent_receiver() -> None:
    session, _ = open_session(limits=Limits(heartbeat_s=10_000))
    assert session.on_tick(839.0) == []
    assert frames(session.on_tick(841.0)) == [{"type": "token_expiring", "expires_in_s": 59}]
    assert session.on_tick(842.0) == []
    assert close_code(session.on_tick(900.0)) == 4401
    assert session.on_tick(901.0) == []


@pytest.mark.req("D16")
def test_a_peer_that_misses_two_heartbeats_is_gone() -> None:
    session, _ = open_session()
    assert session.on_tick(19.0) == []
    assert session.on_tick(20.0) == [SendPing()]
    session.on_heard(21.0)
    assert session.on_tick(40.0) == [SendPing()]
    assert session.on_tick(60.0) == [SendPing()]
    assert close_code(session.on_tick(61.1)) == 1001


def test_unacknowledged_frames_come_again_three_times_and_then_the_connection_ends() -> None:
    session, _ = open_session(limits=Limits(heartbeat_s=10_000))
    item(session, 1)
    for turn in range(1, 4):
        now = 30.0 * turn
        assert session.on_tick(now) == [Fetch(0, 0, 64)]
        (frame,) = frames(session.on_page(make_page([1], seq=1), now))
        assert frame["redelivered"] is True
    assert session.on_tick(119.0) == []
    assert close_code(session.on_tick(120.0)) == 4412


def test_progress_resets_the_patience() -> None:
    session, _ = open_session(limits=Limits(heartbeat_s=10_000))
    for turn in range(1, 8):
        item(session, turn, now=40.0 * turn)
        assert session.on_tick(40.0 * turn + 30.0) == [Fetch(turn - 1, 0, 64)]
        session.on_page(make_page([turn], seq=turn), 40.0 * turn + 30.0)
        session.on_text(f'{{"type":"ack","position":"{position(turn)}"}}'.encode(), 40.0 * turn + 31.0)
    assert session.is_open


def test_a_closed_session_does_nothing_more() -> None:
    session, _ = open_session(ack=AckMode.AUTO)
    assert close_code(session.close(CloseCode.ACCOUNT_CLOSED, "closed")) == 4503
    assert session.close(CloseCode.ACCOUNT_CLOSED, "again") == []
    assert session.on_text(b'{"type":"ping"}', 0.0) == []
    assert session.on_tick(1000.0) == []
    assert session.on_item(1, FrameType.NOTIFICATION, b"{}", is_repeat=False, now=0.0) == []
    assert session.on_page(make_page([1], seq=1), 0.0) == []


@pytest.mark.req("D13")
def test_pings_and_pieces_count_as_frames() -> None:
    session, _ = open_session(limits=Limits(frames_per_second=5))
    assert [session.on_control(1.0) for _ in range(10)] == [[]] * 10
    assert session.on_control(1.0) == [Close(CloseCode.TOO_MANY_FRAMES, "too many frames")]
    assert session.on_control(1.0) == []


# --- positions that are gone ---------------------------------------------------------------------------------------


def say(session: Session, type_: str, where: str) -> list[Effect]:
    return session.on_text(b'{"type":"%b","position":"%b","ref":"r"}' % (type_.encode(), where.encode()), 1.0)


@pytest.mark.req("I08")
@pytest.mark.parametrize("type_", ["sync", "ack"])
def test_who_goes_on_after_a_reset_as_if_nothing_were_lost_is_closed(type_: str) -> None:
    session, effects = open_session(make_info(top_seq=9), requested="deadbeef.000000000000.000000000001")
    assert types(effects)[:2] == ["welcome", "reset"]
    (told,) = frames(say(session, type_, "deadbeef.000000000000.000000000001"))
    assert (told["code"], told["ref"], told["temporary"]) == ("position_gone", "r", False)
    # What it was given counts as ever.
    assert frames(say(session, "ack", position(9))) == []
    assert say(session, type_, "deadbeef.000000000000.000000000001")[-1] == Close(
        CloseCode.POSITION_GONE, "the position is no longer held"
    )


@pytest.mark.req("I08")
@pytest.mark.parametrize(
    ("info", "where"),
    [
        ({"top_seq": 9, "floor_seq": 4, "acked_seq": 9}, position(3)),
        ({"top_broadcast": 9, "floor_broadcast": 4, "acked_broadcast": 9}, position(0, 3)),
        ({"top_seq": 50, "acked_seq": 50}, position(9)),
        ({"top_broadcast": 50, "acked_broadcast": 50}, position(0, 9)),
    ],
)
def test_a_gap_that_is_no_longer_kept_whole_is_not_replayed_in_part(info: dict[str, int], where: str) -> None:
    session, _ = open_session(make_info(**info), limits=Limits(resume_max_items=40))
    (told,) = frames(say(session, "sync", where))
    assert told["code"] == "position_gone"
    assert session.is_open
    assert isinstance(say(session, "sync", where)[-1], Close)


def test_a_position_from_elsewhere_is_an_error_and_no_more() -> None:
    session, _ = open_session()
    for _ in range(3):
        for type_ in ("sync", "ack"):
            (told,) = frames(say(session, type_, "deadbeef.000000000000.000000000001"))
            assert told["code"] == "invalid_position"
    (told,) = frames(say(session, "sync", "no position"))
    assert told["code"] == "invalid_position"


# --- presence ------------------------------------------------------------------------------------------------------


def test_following_is_asked_for_answered_and_ended() -> None:
    session, _ = open_session()
    text = b'{"type":"presence.subscribe","user_ids":["%b"],"ref":"r"}' % str(OTHER).encode()
    assert session.on_text(text, 1.0) == [FollowPresence(frozenset({OTHER}), "r")]
    assert session.following == frozenset()
    view = PresenceView(OTHER, PresenceStatus.ONLINE, WALL_CLOCK, {}, 1)
    (frame,) = frames(session.on_following([view], "r"))
    SERVER_FRAMES["presence"].model_validate(frame)
    assert frame == {
        "type": "presence",
        "user_id": str(OTHER),
        "status": "online",
        "last_seen_at": "2026-01-02T03:04:05.000Z",
        "ref": "r",
    }
    assert session.following == {OTHER}
    assert types(session.on_presence(view)) == ["presence"]
    ended = session.on_text(text.replace(b"subscribe", b"unsubscribe"), 1.0)
    assert others(ended) == [UnfollowPresence(frozenset({OTHER}))]
    assert frames(ended) == [{"type": "presence.unsubscribed", "following": 0, "ref": "r"}]


def test_following_has_a_limit() -> None:
    session, _ = open_session(limits=Limits(max_following=1))
    text = b'{"type":"presence.subscribe","user_ids":["%b","%b"]}' % (str(OTHER).encode(), str(USER).encode())
    (refused,) = frames(session.on_text(text, 1.0))
    assert (refused["code"], refused["temporary"]) == ("limit_reached", False)


def test_requests_under_way_together_do_not_pass_the_limit_either() -> None:
    session, _ = open_session(limits=Limits(max_following=1))
    for user_id in (OTHER, USER):
        text = b'{"type":"presence.subscribe","user_ids":["%b"]}' % str(user_id).encode()
        assert session.on_text(text, 1.0) == [FollowPresence(frozenset({user_id}), None)]
    views = [PresenceView(user_id, PresenceStatus.ONLINE, WALL_CLOCK, {}, 1) for user_id in (OTHER, USER)]
    assert types(session.on_following(views[:1], None)) == ["presence"]
    (refused,) = frames(session.on_following(views[1:], "r"))
    assert (refused["code"], refused["ref"]) == ("limit_reached", "r")
    assert session.following == {OTHER}


def test_who_may_no_longer_be_seen_is_no_longer_followed() -> None:
    session, _ = open_session()
    session.on_following([PresenceView(OTHER, PresenceStatus.OFFLINE, None, {}, 0)], None)
    assert session.on_not_visible(frozenset({OTHER})) == [UnfollowPresence(frozenset({OTHER}))]
    assert session.following == frozenset()


def test_a_person_may_be_away() -> None:
    session, _ = open_session()
    assert str(session.status) == "online"
    effects = session.on_text(b'{"type":"presence.set","status":"away","ref":"p"}', 1.0)
    assert effects == [ShowPresence(PresenceStatus.AWAY, "p")]
    assert session.status is PresenceStatus.AWAY


def test_nothing_of_presence_is_told_to_the_closed() -> None:
    session, _ = open_session()
    session.close(CloseCode.NORMAL, "")
    view = PresenceView(OTHER, PresenceStatus.ONLINE, None, {}, 1)
    assert session.on_following([view], None) == session.on_presence(view) == session.on_live_event(b"{}") == []


def test_live_events_move_nothing() -> None:
    session, _ = open_session()
    before = session.follower.position
    assert session.on_live_event(b'{"type":"notification"}') == [SendText(b'{"type":"notification"}')]
    assert session.follower.position == before
    assert session.follower.unacked_count == 0


# --- messages, leaving ---------------------------------------------------------------------------------------------


def test_messages_have_a_rate_of_their_own() -> None:
    session, _ = open_session(limits=Limits(messages_per_second=1))
    text = b'{"type":"send","to":{"user":"%b"},"body":"b","ref":"m"}' % str(OTHER).encode()
    first, second, third = (session.on_text(text, 1.0) for _ in range(3))
    assert isinstance(first[0], SendMessage)
    assert isinstance(second[0], SendMessage)
    (refused,) = frames(third)
    assert (refused["code"], refused["temporary"], refused["ref"]) == ("rate_limited", True, "m")
    assert refused["retry_after_ms"] == 1001
    assert isinstance(session.on_text(text, 2.1)[0], SendMessage)


@pytest.mark.req("X-12")
def test_a_draining_server_says_when_to_come_back_and_closes() -> None:
    session, _ = open_session()
    effects = session.on_drain(after_ms=0, spread_ms=500, now=10.0)
    (frame,) = frames(effects)
    SERVER_FRAMES["reconnect"].model_validate(frame)
    assert frame == {"type": "reconnect", "after_ms": 0, "spread_ms": 500, "reason": "restarting"}
    assert others(effects) == [WakeAfter(DRAIN_NOTICE_S)]
    assert session.on_drain(after_ms=0, spread_ms=500, now=10.1) == []
    assert close_code(session.on_tick(10.1)) is None
    assert close_code(session.on_tick(10.25)) == 1012


def test_who_is_not_identified_yet_is_closed_at_once_by_a_drain() -> None:
    assert close_code(new_session().on_drain(after_ms=0, spread_ms=1, now=0.0)) == 1012
