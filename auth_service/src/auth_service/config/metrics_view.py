from __future__ import annotations

import os
from collections.abc import Iterator

from django.db import DatabaseError
from django.db.models import Count, Min
from django.http import HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from rest_framework.request import Request
from typing_extensions import override

from auth_service import clock
from auth_service.api.access import Access
from auth_service.api.schema import operation
from auth_service.api.views import ApiView
from auth_service.config.processes import MULTIPROCESS_FOLDER
from auth_service.identity_events.models import OutboxEvent


class OutboxCollector(Collector):
    """How much is waiting to be published: asked when it is read, so that it is right whoever answers."""

    @override
    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The two gauges; none while the database does not answer."""
        try:
            waiting = OutboxEvent.objects.filter(published_at=None).aggregate(
                count=Count("revision"), oldest=Min("occurred_at")
            )
        except DatabaseError:
            return
        oldest = waiting["oldest"]
        age_s = (clock.now() - oldest).total_seconds() if oldest else 0.0
        yield GaugeMetricFamily("outbox_pending", "Identity events not published yet.", value=waiting["count"])
        yield GaugeMetricFamily("outbox_oldest_seconds", "Age of the oldest of them.", value=age_s)


class MetricsView(ApiView):
    """For Prometheus."""

    access = {"GET": Access.OPERATOR}

    @operation("get_metrics", "Metrics", response=str, media_type="text/plain")
    def get(self, request: Request) -> HttpResponse:
        """The counts of all worker processes together."""
        registry = CollectorRegistry()
        if os.environ.get(MULTIPROCESS_FOLDER):
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            counted = generate_latest(registry)
        else:
            counted = generate_latest(REGISTRY)
        own = CollectorRegistry()
        own.register(OutboxCollector())
        return HttpResponse(counted + generate_latest(own), content_type=CONTENT_TYPE_LATEST)
