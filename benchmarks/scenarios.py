"""What is measured. Each scenario answers its figures by name; the names end in their units."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.accounting import OTHERS, CpuClock, memory_kb
from benchmarks.compare.systems import running
from benchmarks.disk import DiskProbe
from benchmarks.installation import Installation
from benchmarks.load.agent import Agent
from benchmarks.load.bodies import make_body
from benchmarks.load.process import LoadProcess
from benchmarks.load.results import Connected
from benchmarks.people import People
from herald_local.console import say

Figures = dict[str, float]

_REST_SHARE: Final = 0.05
"""Of a core: RabbitMQ takes a hundredth when it rests, and a whole one while it writes what thousands of queues got."""

_REST_LIMIT_S: Final = 60


@dataclass(frozen=True)
class Sizes:
    """How much of everything; the defaults are what the targets are said for."""

    private_users: int = 500
    private_s: float = 15.0
    in_flight: int = 400
    pace_per_s: float = 500.0
    broadcast_sockets: int = 2000
    broadcasts: int = 150
    idle_sockets: int = 5000
    resuming_users: int = 2000
    waiting: int = 20
    at_once: int = 5000

    def scaled(self, factor: float) -> Sizes:
        """Fewer users and sockets, for a look at a busy or small machine; the targets do not count then."""
        return replace(
            self,
            private_users=max(10, int(self.private_users * factor)),
            broadcast_sockets=max(10, int(self.broadcast_sockets * factor)),
            idle_sockets=max(10, int(self.idle_sockets * factor)),
            resuming_users=max(10, int(self.resuming_users * factor)),
        )


@dataclass(frozen=True)
class Bench:
    """A running installation and a load for it."""

    installation: Installation
    people: People
    load: LoadProcess
    sizes: Sizes


def measure_private(bench: Bench) -> Figures:
    """Private messages: published over AMQP, stored, pushed, acknowledged by the device, settled in RabbitMQ."""
    sizes = bench.sizes
    _open(bench, sizes.private_users, ack_every=1)
    figures = _measure_flows(bench, sizes, bench.installation.clock(bench.load.pid))
    bench.load.call(Agent.close_all)
    return figures


def _measure_flows(bench: Bench, sizes: Sizes, clock: CpuClock) -> Figures:
    """As many as go through, then a steady rate."""
    bench.load.call(Agent.flow_private, in_flight=sizes.in_flight, seconds=3.0)
    bench.installation.analyze()
    clock.restart()
    flow = bench.load.call(Agent.flow_private, in_flight=sizes.in_flight, seconds=sizes.private_s)
    _settle()
    figures = {"messages_per_s": flow.received / flow.elapsed_s, **_per_unit(clock.spent(), flow.received)}
    bench.load.call(Agent.pace_private, per_s=sizes.pace_per_s, seconds=2.0)
    clock.restart()
    with DiskProbe(bench.installation.folder) as disk:
        paced = bench.load.call(Agent.pace_private, per_s=sizes.pace_per_s, seconds=sizes.private_s)
    _settle()
    figures |= {f"paced_{name}_ms": value for name, value in paced.latency_ms.items()}
    figures |= {f"paced_{name}": value for name, value in _per_unit(clock.spent(), paced.received).items()}
    figures |= {f"paced_{name}": value for name, value in disk.figures().items()}
    figures["lost"] = flow.sent - flow.received + paced.sent - paced.received
    return figures


def measure_broadcast(bench: Bench) -> Figures:
    """Broadcasts to everybody, to devices that count as having received what was written to them."""
    return _measure_broadcast(bench, ack_every=0)


def measure_broadcast_acked(bench: Bench) -> Figures:
    """Broadcasts to everybody; every device acknowledges every sixteenth, and with it those before."""
    return _measure_broadcast(bench, ack_every=16)


def _measure_broadcast(bench: Bench, *, ack_every: int) -> Figures:
    _open(bench, bench.sizes.broadcast_sockets, ack_every=ack_every)
    figures = _measure_broadcasts(bench, bench.installation.clock(bench.load.pid))
    figures["deliveries_per_gateway_cpu_s"] = 1e6 / figures["gateway_cpu_us"]
    bench.load.call(Agent.close_all)
    return figures


def _measure_broadcasts(bench: Bench, clock: CpuClock) -> Figures:
    """As many as go through, then one at a time."""
    count = bench.sizes.broadcasts
    bench.load.call(Agent.flow_broadcasts, in_flight=4, count=20)
    bench.installation.analyze()
    clock.restart()
    flow = bench.load.call(Agent.flow_broadcasts, in_flight=4, count=count)
    figures = {"deliveries_per_s": flow.received / flow.elapsed_s, **_per_unit(clock.spent(), flow.received)}
    clock.restart()
    paced = bench.load.call(Agent.pace_broadcasts, per_s=4.0, count=count // 2)
    figures |= {f"last_receipt_{name}_ms": value for name, value in paced.latency_ms.items()}
    return figures | {f"paced_{name}": value for name, value in _per_unit(clock.spent(), paced.received).items()}


def measure_bare(bench: Bench) -> Figures:
    """The broadcasts by a bare loop that writes ready frames: what Python, the kernel and the load take at least.

    Herald's own come first, so that both are of one run.
    """
    own = measure_broadcast(bench)
    figures = {f"herald_{name}": value for name, value in own.items() if not name.endswith("_cpu_us")}
    figures["herald_gateway_us"] = own["gateway_cpu_us"]
    names = [f"device-{number}" for number in range(bench.sizes.broadcast_sockets)]
    with running("bare") as other:
        bench.load.call(Agent.open_others, kind="bare", url=other.url, publish_url=other.publish_url, user_ids=names)
        bare = _measure_broadcasts(bench, CpuClock({**other.pids, "load": bench.load.pid}))
        bench.load.call(Agent.close_all)
    return figures | {f"bare_{name}" if not name.endswith("_cpu_us") else name: value for name, value in bare.items()}


def measure_idle(bench: Bench) -> Figures:
    """Sockets that only stay: what they cost to accept, and to keep."""
    sizes = bench.sizes
    gateway, broker = bench.installation.pids()["gateway"], bench.installation.pids()["broker"]
    _open(bench, 200, ack_every=1)
    bench.load.call(Agent.close_all)
    _settle(3.0)
    # Users who never connected have no queue yet.
    people = bench.people.get_new(sizes.idle_sockets)
    bench.installation.analyze()
    before = memory_kb(gateway), memory_kb(broker)
    clock = bench.installation.clock(bench.load.pid)
    opened = bench.load.call(Agent.open, people=people, ack_every=1, at_once=200)
    _check(opened)
    figures = {"connects_per_s": opened.opened / opened.elapsed_s, **_per_unit(clock.spent(), opened.opened)}
    _settle(3.0)
    figures["gateway_kb_per_connection"] = (memory_kb(gateway) - before[0]) / opened.opened
    figures["broker_kb_per_connection"] = (memory_kb(broker) - before[1]) / opened.opened
    clock.restart()
    _settle(5.0)
    figures["gateway_idle_cpu_percent"] = clock.spent()["gateway"] / 5.0 * 100
    figures["refused_attempts"] = sum(opened.refusals.values())
    figures["lost"] = opened.opened - bench.load.call(Agent.count_open)
    bench.load.call(Agent.close_all)
    _settle(3.0)
    return figures


def measure_resume(bench: Bench) -> Figures:
    """Users reconnect all at once; messages wait for each in their queues."""
    sizes = bench.sizes
    people = bench.people.get(sizes.resuming_users)
    _check(bench.load.call(Agent.open, people=people, ack_every=1, at_once=64))
    bench.load.call(Agent.close_all)
    _settle(2.0)
    ids = [person.id for person in people]
    bodies = [make_body(ids[at : at + 500], 0) for _ in range(sizes.waiting) for at in range(0, len(ids), 500)]
    bench.load.call(Agent.publish_all, bodies=bodies)
    wanted = sizes.waiting * len(people)
    _wait_for_depth(bench, wanted)
    people = bench.people.get(sizes.resuming_users)
    bench.installation.analyze()
    # Those who come back find a system at rest, and pay for nothing that publishing left to be written.
    _wait_at_rest(bench)
    queries = bench.installation.count_queries()
    clock = bench.installation.clock(bench.load.pid)
    opened = bench.load.call(
        Agent.open, people=people, ack_every=sizes.waiting // 2, at_once=sizes.at_once, wanted=sizes.waiting
    )
    _check(opened)
    _settle()
    figures = {
        "resumes_per_s": opened.opened / opened.elapsed_s,
        "all_caught_up_s": opened.elapsed_s,
        **{f"caught_up_{name}_ms": value for name, value in opened.caught_up_ms.items()},
        **_per_unit(clock.spent(), opened.opened),
        "queries_per_resume": (bench.installation.count_queries() - queries) / opened.opened,
        "refused_attempts": sum(opened.refusals.values()),
        "lost": wanted - opened.received,
    }
    bench.load.call(Agent.close_all)
    _settle(2.0)
    return figures


def measure_compare(bench: Bench) -> Figures:
    """The same private messages by Herald and by others, one after the other: CPU time of everything, and latency.

    Only Web MQTT keeps and confirms messages as Herald does; Channels and Socket.IO lose what nobody is there for.
    """
    seconds = min(bench.sizes.private_s, 8.0)
    sizes = replace(bench.sizes, private_s=seconds)
    own = measure_private(replace(bench, sizes=sizes))
    figures = {f"herald_{name}": own[name] for name in ("messages_per_s", "paced_p50_ms", "paced_p99_ms", "lost")}
    figures["herald_us_per_message"] = _sum_cpu(own, "")
    figures["herald_paced_us_per_message"] = _sum_cpu(own, "paced_")
    user_ids = [person.id for person in bench.people.get(sizes.private_users)]
    for kind in ("web_mqtt", "channels", "socketio"):
        with running(kind) as other:
            bench.load.call(
                Agent.open_others, kind=kind, url=other.url, publish_url=other.publish_url, user_ids=user_ids
            )
            found = _measure_flows(bench, sizes, CpuClock({**other.pids, "load": bench.load.pid}))
            bench.load.call(Agent.close_all)
        figures |= {
            f"{kind}_{name}": found[name] for name in ("messages_per_s", "paced_p50_ms", "paced_p99_ms", "lost")
        }
        for prefix in ("", "paced_"):
            total = _sum_cpu(found, prefix)
            figures[f"{kind}_{prefix}us_per_message"] = total
            figures[f"herald_{prefix}cpu_by_{kind}"] = figures[f"herald_{prefix}us_per_message"] / total
    return figures


def _sum_cpu(figures: Figures, prefix: str) -> float:
    """CPU time per message of all processes but the load."""
    shares = {
        name.removeprefix(prefix).removesuffix("_cpu_us"): value
        for name, value in figures.items()
        if name.endswith("_cpu_us") and name.startswith("paced_") == bool(prefix)
    }
    return sum(value for share, value in shares.items() if share not in ("load", OTHERS))


SCENARIOS: Mapping[str, Callable[[Bench], Figures]] = {
    "private": measure_private,
    "broadcast": measure_broadcast,
    "broadcast_acked": measure_broadcast_acked,
    "idle": measure_idle,
    "resume": measure_resume,
    "bare": measure_bare,
    "compare": measure_compare,
}
# The others on demand only: they are about others, and `compare` installs them.
BY_DEFAULT = tuple(name for name in SCENARIOS if name not in ("bare", "compare"))


def _open(bench: Bench, count: int, *, ack_every: int) -> None:
    _check(bench.load.call(Agent.open, people=bench.people.get(count), ack_every=ack_every, at_once=64))
    _settle()


def _check(opened: Connected) -> None:
    if opened.refusals:
        say("bench", f"connections were refused and tried again: {opened.refusals}")
    if opened.failed:
        raise RuntimeError(f"{opened.failed} of {opened.failed + opened.opened} connections failed: {opened.refusals}")


def _per_unit(spent: Mapping[str, float], units: int) -> Figures:
    return {f"{name}_cpu_us": seconds / units * 1e6 for name, seconds in spent.items()}


def _wait_for_depth(bench: Bench, wanted: int) -> None:
    """Return when so many messages wait in users' queues."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        listed = bench.installation.node.ctl("list_queues", "name", "messages").splitlines()
        found = sum(int(depth) for name, depth in (line.split("\t") for line in listed) if name.startswith("user."))
        if found >= wanted:
            return
        time.sleep(0.5)
    raise RuntimeError(f"{wanted} messages should wait in users' queues")


def _wait_at_rest(bench: Bench) -> None:
    """Wait until RabbitMQ has had nothing to do for two seconds: its queues write late what they were given."""
    clock = bench.installation.clock(bench.load.pid)
    quiet_s = 0
    for _ in range(_REST_LIMIT_S):
        clock.restart()
        _settle(1.0)
        quiet_s = quiet_s + 1 if clock.spent()["broker"] < _REST_SHARE else 0
        if quiet_s == 2:
            return
    say("bench", f"RabbitMQ did not come to rest within {_REST_LIMIT_S} s; what it writes is counted, too")


def _settle(seconds: float = 1.0) -> None:
    """What is written late (cursors, marks, settled messages) belongs to what caused it."""
    time.sleep(seconds)
