"""Figures of running processes, read from their metrics pages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import httpx
from prometheus_client.parser import text_string_to_metric_families

from harness.stack import Stack


async def read_metric(stack: Stack, name: str, processes: Iterable[str], **labels: str) -> float:
    """The sum of one sample over processes; a process that does not know it yet counts 0."""
    total = 0.0
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        for process in processes:
            page = (await client.get(f"{stack.url_of(process)}/metrics")).text
            total += sum(
                sample.value
                for family in text_string_to_metric_families(page)
                for sample in family.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )
    return total


async def are_consumers_alive(stack: Stack) -> bool:
    """Whether every gateway and worker has all the consumers it should have."""
    processes = [*stack.notify_names, *stack.worker_names]
    # Set once a second and read one after the other: a device that has just left counts in one and not in the other.
    for _ in range(20):
        expected = await read_metric(stack, "amqp_consumers_expected", processes)
        if expected > 0 and await read_metric(stack, "amqp_consumers_alive", processes) == expected:
            return True
        await asyncio.sleep(0.5)
    return False
