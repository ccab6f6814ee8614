from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared_contracts.ws.positions import MAX_NUMBER, MAX_POSITION_LENGTH, Position, parse_position

numbers = st.integers(min_value=0, max_value=MAX_NUMBER)


@given(broadcast=numbers, seq=numbers)
def test_round_trip_at_a_fixed_width(broadcast: int, seq: int) -> None:
    position = Position("a1b2c3d4", broadcast, seq)
    assert len(str(position)) == MAX_POSITION_LENGTH
    assert parse_position(str(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a1b2c3d4",
        "a1b2c3d4.1.2",
        "A1B2C3D4.000000000001.000000000002",
        "a1b2c3d4.000000000001.000000000002 ",
        "x" * 34,
    ],
)
def test_what_herald_never_made_is_refused(text: str) -> None:
    assert parse_position(text) is None


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    position = parse_position(text)
    assert position is None or str(position) == text
