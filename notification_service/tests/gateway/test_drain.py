from __future__ import annotations

import pytest

from notification_service.gateway.drain import DrainPlan, plan_drain

pytestmark = pytest.mark.req("X-12")


def plan(clients: int, other_nodes: int = 1) -> DrainPlan:
    return plan_drain(clients=clients, other_nodes=other_nodes, drain_s=5.0, handshakes_per_second=2_000)


def test_few_clients_leave_together() -> None:
    assert plan(0) == plan(50) == DrainPlan(wave_size=50, after_ms=0, spread_ms=500)


def test_many_leave_in_twenty_waves_spread_over_what_the_others_admit() -> None:
    assert plan(20_000) == DrainPlan(wave_size=1_000, after_ms=0, spread_ms=20_000)
    assert plan(20_000, other_nodes=4).spread_ms == 5_000


def test_without_another_node_they_wait_for_the_restart() -> None:
    assert plan(100, other_nodes=0) == DrainPlan(wave_size=50, after_ms=2_000, spread_ms=500)


def test_the_spread_has_an_end() -> None:
    assert plan(1_000_000, other_nodes=0).spread_ms == 60_000
    at_once = plan_drain(clients=1_000, other_nodes=1, drain_s=0.0, handshakes_per_second=2_000)
    assert at_once.wave_size == 1_000
