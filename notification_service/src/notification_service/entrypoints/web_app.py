"""The FastAPI application: routers, middleware, error handlers; which process serves which routers is decided here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from notification_service.analytics.endpoints import make_analytics_router
from notification_service.channels.page_endpoints import make_channel_page_router
from notification_service.channels.queueing import requeue_deliveries
from notification_service.channels.report_endpoints import make_report_router
from notification_service.channels.unsubscribe_endpoints import make_unsubscribe_router
from notification_service.channels.views import ChannelDeliveries
from notification_service.contacts.endpoints import make_contact_router, make_telegram_router
from notification_service.contacts.suppression_endpoints import make_suppression_router
from notification_service.dead_letters.endpoints import make_dead_letter_router
from notification_service.digests.endpoints import make_digest_router
from notification_service.entrypoints.delivery_endpoints import explain_delivery, make_delivery_router
from notification_service.entrypoints.health import Check, make_health_router
from notification_service.entrypoints.parts import Parts
from notification_service.entrypoints.personal_data import PERSONAL_DATA
from notification_service.event_types.endpoints import make_event_type_router, make_settings_router
from notification_service.intake.endpoints import BODY_LIMITS, make_intake_router
from notification_service.mailbox.endpoints import make_inbox_router
from notification_service.mailbox.status_endpoints import make_status_router
from notification_service.notifications.endpoints import make_sent_router
from notification_service.personal_data.endpoints import make_personal_data_router
from notification_service.personal_data.report import ReportSigner
from notification_service.personal_data.report_endpoints import make_erasure_router
from notification_service.preferences.endpoints import make_preferences_router
from notification_service.presence.endpoints import make_presence_router
from notification_service.rest.callers import Callers
from notification_service.rest.documentation import DESCRIPTION, DocumentedApi, name_operation
from notification_service.rest.documents import install_documents
from notification_service.rest.middleware import BodyLimit, FixedPaths, RequestFrame
from notification_service.rest.pages import Cursors
from notification_service.rest.problems import install_problem_handlers, too_large_app
from notification_service.templates.endpoints import make_template_router
from shared_contracts.headers import CORRELATION_ID, IDEMPOTENCY_KEY

Lifespan = Callable[[Any], AbstractAsyncContextManager[None]]


def make_api_routers(parts: Parts) -> list[APIRouter]:
    """The REST API (contract section 3)."""
    callers = Callers(parts.access)
    cursors = Cursors(parts.settings.internal_keys[0])
    return [
        make_intake_router(parts.acceptor, callers),
        make_status_router(parts.database, parts.clock, callers, cursors, ChannelDeliveries()),
        make_inbox_router(parts.inbox, callers, cursors),
        make_event_type_router(parts.database, parts.catalog, parts.clock, callers, cursors),
        make_settings_router(parts.database, parts.catalog, parts.clock, callers),
        make_template_router(parts.templates, callers),
        make_sent_router(parts.sent, callers, cursors),
        make_digest_router(parts.schedules, callers, cursors),
        make_analytics_router(parts.database, parts.clock, callers),
        make_delivery_router(parts.database, parts.clock, callers, cursors),
        make_contact_router(parts.channels.contact_book, callers, cursors),
        make_telegram_router(parts.channels.contact_book, parts.channels.telegram_webhook_secret),
        make_report_router(parts.channels.registry, parts.settings.public_url, parts.channels.reporting),
        make_channel_page_router(parts.database, parts.clock, parts.channels.registry, parts.settings),
        make_suppression_router(parts.database, parts.clock, callers, cursors),
        make_unsubscribe_router(parts.channels.links, parts.unsubscribe),
        make_preferences_router(parts.preferences, callers),
        make_dead_letter_router(
            parts.database,
            parts.publisher,
            parts.clock,
            callers,
            cursors,
            requeue=requeue_deliveries,
            explain=explain_delivery,
        ),
        make_personal_data_router(parts.database, parts.clock, PERSONAL_DATA, parts.settings.internal_keys),
        make_erasure_router(
            parts.database,
            parts.clock,
            callers,
            ReportSigner(parts.settings.internal_keys, parts.settings.public_url or "herald-notification"),
        ),
        make_presence_router(parts.nodes, parts.people, callers, cursors),
    ]


def make_app(
    parts: Parts, routers: Sequence[APIRouter], *, checks: dict[str, Check], ready: tuple[str, ...], lifespan: Lifespan
) -> FastAPI:
    """An application of these routers, with health and metrics."""
    app = DocumentedApi(
        title="Herald notification service",
        description=DESCRIPTION,
        version="0.1.0",
        openapi_url=None,
        generate_unique_id_function=name_operation,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    for router in (*routers, make_health_router(checks, ready, parts.settings)):
        app.include_router(router)
    if routers:
        install_documents(app, parts.settings)
    install_problem_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(FixedPaths)
    app.add_middleware(BodyLimit, limits=BODY_LIMITS, on_too_large=too_large_app)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=list(parts.settings.allowed_origins),
        allow_methods=["*"],
        allow_headers=["Authorization", "Content-Type", CORRELATION_ID, IDEMPOTENCY_KEY],
        expose_headers=[CORRELATION_ID, "Location", "Retry-After"],
    )
    app.add_middleware(RequestFrame, clock=parts.clock)
    return app
