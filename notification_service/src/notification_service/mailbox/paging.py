"""From rows to a page: merge the parts, never past what was read completely. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final, NamedTuple
from uuid import UUID

from notification_service.notifications.frames import (
    encode_kept_item,
    encode_state,
    encode_unknown,
    encode_updated,
    encode_withdrawn,
)
from notification_service.notifications.kept import Counts
from notification_service.notifications.pages import UPDATED_LABEL, WITHDRAW_LABELS, Entry, FrameType, Page
from shared_contracts.ws.frames import MAX_IDS

CHANGE_LIMIT: Final = MAX_IDS + 1
"""Rows read of each kind of change. One action touches at most MAX_IDS items, so one whole action always fits."""

Contents = Mapping[tuple[UUID, str | None], bytes]
"""What clients see of a notification, encoded once for all its recipients; by notification and variant."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One user's question: what came after these numbers, `limit` notifications at most."""

    user_id: UUID
    tenant: str
    after_seq: int
    after_broadcast: int
    limit: int


@dataclass(frozen=True, slots=True)
class Head:
    """Where the two streams ended when they were read."""

    top_seq: int
    top_broadcast: int
    counts: Counts


class _Piece(NamedTuple):
    """A frame in waiting; `entry` None where nothing is shown and only the number is completed."""

    number: int
    at: datetime
    entry: Entry | None


def make_page(
    wanted: Wanted, head: Head, *, changes: Sequence[Any], log: Sequence[Any], contents: Contents, now: datetime
) -> Page:
    """Merge a user's changes and the broadcasts by time, each stream in its own order.

    Args:
        wanted: The question; rows were read with one more than its limit.
        head: Read before the rows.
        changes: Rows of the four kinds of change, each kind in order.
        log: Rows of the broadcast log, in order.
        contents: Of every notification that is new to the asker.
        now: What expired by then is left out.
    """
    bound = _complete_up_to(changes, wanted)
    stream = list(_stream_pieces(changes, bound, head.counts, contents, now))
    broadcasts = list(_log_pieces(log[: wanted.limit], contents, now))
    merger = _Merger(wanted, stream, broadcasts)
    entries = merger.take()
    cut_stream = bound is not None or merger.has_stream_left
    cut_log = len(log) > wanted.limit or merger.has_log_left
    return Page(
        entries=entries,
        seq=merger.seq if cut_stream else max(merger.seq, head.top_seq),
        broadcast=merger.broadcast if cut_log else max(merger.broadcast, head.top_broadcast),
        has_more=cut_stream or cut_log,
    )


class _Merger:
    """Takes pieces of both streams by time until `limit` notifications are taken."""

    def __init__(self, wanted: Wanted, stream: list[_Piece], log: list[_Piece]) -> None:
        self._stream, self._log = stream[::-1], log[::-1]
        self._left = wanted.limit
        self.seq, self.broadcast = wanted.after_seq, wanted.after_broadcast

    @property
    def has_stream_left(self) -> bool:
        return bool(self._stream)

    @property
    def has_log_left(self) -> bool:
        return bool(self._log)

    def take(self) -> list[Entry]:
        entries = []
        while (self._stream or self._log) and self._left:
            from_stream = bool(self._stream) and (not self._log or self._stream[-1].at <= self._log[-1].at)
            piece = (self._stream if from_stream else self._log).pop()
            if from_stream:
                self.seq = piece.number
            else:
                self.broadcast = piece.number
            if piece.entry is not None:
                entries.append(piece.entry)
                self._left -= piece.entry.type is FrameType.NOTIFICATION
        return entries


def _complete_up_to(changes: Sequence[Any], wanted: Wanted) -> int | None:
    """The number up to which nothing was cut off; None when nothing was."""
    limits = {"new": wanted.limit + 1, "changed": CHANGE_LIMIT, "broadcast_state": CHANGE_LIMIT, "mark": CHANGE_LIMIT}
    if len(changes) < min(limits.values()):
        return None
    bounds = []
    for part, limit in limits.items():
        numbers = [_number(row) for row in changes if row.part == part]
        if len(numbers) >= limit:
            # The last number may continue beyond the cut; the ones before it are complete.
            bounds.append(max(numbers) - 1)
    return min(bounds, default=None)


_NEW: Final = "new"
_MARK: Final = "mark"


def _number(row: Any) -> int:
    return int(row.seq if row.part == _NEW else row.changed_seq)


def _stream_pieces(
    changes: Sequence[Any], bound: int | None, counts: Counts, contents: Contents, now: datetime
) -> Iterator[_Piece]:
    # A number stands for one arrival or for one action, never for both. An item that arrived and changed in the gap
    # comes twice: as it is now, under the number of its arrival, and in the state frame of its last change.
    for number, rows in groupby(sorted(changes, key=_number), key=_number):
        if bound is not None and number > bound:
            return
        first, *others = rows
        if first.part == _NEW:
            yield _new_piece(first, counts, contents, now)
        elif first.last_change in WITHDRAW_LABELS or first.last_change == UPDATED_LABEL:
            yield _told_piece(first, number, counts, contents, now)
        else:
            yield _state_piece([first, *others], number, counts, now)


def _new_piece(row: Any, counts: Counts, contents: Contents, now: datetime) -> _Piece:
    if _is_gone(row, now):
        return _Piece(row.seq, row.created_at, None)
    body = encode_kept_item(contents[row.notification_id, row.variant], seq=row.seq, flags=row, counts=counts)
    return _Piece(row.seq, row.created_at, Entry(row.seq, is_broadcast=False, type=FrameType.NOTIFICATION, body=body))


def _is_gone(row: Any, now: datetime) -> bool:
    return row.deleted_at is not None or (row.expires_at is not None and row.expires_at <= now)


def _state_piece(rows: Sequence[Any], number: int, counts: Counts, now: datetime) -> _Piece:
    first = rows[0]
    everything = first.part == _MARK
    moment = max(filter(None, (first.read_at, first.seen_at, first.archived_at, first.deleted_at)), default=now)
    body = encode_state(
        ids=None if everything else [row.notification_id for row in rows],
        label=first.last_change,
        at=moment,
        seq=number,
        counts=counts,
        flags=None if everything else first,
    )
    return _Piece(number, moment, Entry(number, is_broadcast=False, type=FrameType.STATE, body=body))


def _told_piece(row: Any, number: int, counts: Counts, contents: Contents, now: datetime) -> _Piece:
    """What the sender, a newer item or time did to an item."""
    if row.last_change == UPDATED_LABEL:
        content = contents.get((row.notification_id, row.variant)) or encode_unknown(row.notification_id)
        type_, body = FrameType.UPDATED, encode_updated(content, seq=number, counts=counts)
    else:
        type_ = FrameType.RECALLED
        body = encode_withdrawn(row.notification_id, seq=number, counts=counts, reason=row.last_change)
    return _Piece(number, row.deleted_at or now, Entry(number, is_broadcast=False, type=type_, body=body))


def _log_pieces(log: Sequence[Any], contents: Contents, now: datetime) -> Iterator[_Piece]:
    for row in log:
        if row.about is not None:
            yield _told_log_piece(row, contents)
            continue
        if _is_gone(row, now):
            yield _Piece(row.seq, row.created_at, None)
            continue
        body = encode_kept_item(contents[row.notification_id, None], seq=None, flags=row, counts=None)
        yield _Piece(row.seq, row.created_at, Entry(row.seq, is_broadcast=True, type=FrameType.NOTIFICATION, body=body))


def _told_log_piece(row: Any, contents: Contents) -> _Piece:
    if row.label == UPDATED_LABEL:
        content = contents.get((row.about, None)) or encode_unknown(row.about)
        type_, body = FrameType.UPDATED, encode_updated(content, seq=None, counts=None)
    else:
        type_, body = FrameType.RECALLED, encode_withdrawn(row.about, seq=None, counts=None, reason=row.label)
    return _Piece(row.seq, row.created_at, Entry(row.seq, is_broadcast=True, type=type_, body=body))
