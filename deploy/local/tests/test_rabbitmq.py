"""The private node: own data that survives a crash, nothing left behind."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from herald_local.ports import find_free_ports, is_free
from herald_local.rabbitmq import USER_QUEUE_POLICY, RabbitNode, answers_amqp


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RabbitNode]:
    node = RabbitNode(tmp_path / "rabbitmq")
    yield node
    node.discard()


def count_open_files(node: RabbitNode) -> int:
    """How many the operating system allows the node, less what Erlang keeps for itself."""
    return int(node.ctl("eval", "file_handle_cache:get_limit()."))


def test_a_node_survives_a_crash_and_leaves_nothing_behind(node: RabbitNode) -> None:
    node.start()
    assert answers_amqp(node.settings.amqp_port)
    assert "herald-user-queues" in node.ctl("list_policies")
    assert count_open_files(node) >= min(200_000, resource.getrlimit(resource.RLIMIT_NOFILE)[1] % 2**31) - 200
    node.ctl("add_vhost", "kept")
    node.kill()
    assert not answers_amqp(node.settings.amqp_port)

    node.start()
    assert "kept" in node.ctl("list_vhosts")
    node.stop()

    leftovers = [p.info for p in psutil.process_iter(["name", "cmdline"]) if str(node.folder) in str(p.info["cmdline"])]
    assert leftovers == []
    assert all(is_free(port) for port in (node.settings.amqp_port, node.settings.dist_port, node.settings.epmd_port))


def test_a_second_start_finds_its_ports_and_password(node: RabbitNode) -> None:
    again = RabbitNode(node.folder)
    assert again.settings == node.settings
    assert (node.folder / "node.json").stat().st_mode & 0o077 == 0


def test_a_wanted_port_is_used(tmp_path: Path) -> None:
    port = find_free_ports(1)[0]
    assert f":{port}/" in RabbitNode(tmp_path / "n", amqp_port=port).url


def test_free_ports_differ() -> None:
    assert len(set(find_free_ports(20))) == 20


def test_a_port_is_given_to_one_process_only_before_anything_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = find_free_ports(3)
    monkeypatch.setattr("herald_local.ports._LOWEST", min(ports))
    monkeypatch.setattr("herald_local.ports._HIGHEST", min(ports) + 1)
    with pytest.raises(OSError, match="no free port is left"):
        find_free_ports(1)


def test_the_production_definitions_set_the_same_policy() -> None:
    definitions = Path(__file__).parents[2] / "rabbitmq" / "definitions.json"
    assert USER_QUEUE_POLICY in json.loads(definitions.read_text())["policies"]
