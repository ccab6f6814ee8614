"""Metrics of every process, by the names operators alert on. No user, token or queue is ever a label."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_LATENCY_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)

token_rejected = Counter("auth_token_rejected", "Access tokens refused.", ["reason"])
ws_connections = Gauge("ws_connections", "Open WebSocket connections of this process.")
ws_closed = Counter("ws_closed", "WebSocket connections closed.", ["code"])
ws_send_buffer_bytes = Gauge("ws_send_buffer_bytes", "Bytes waiting for clients that read slowly.")
ws_frames_sent = Counter("ws_frames_sent", "Frames written to clients.", ["type"])
outbox_pending = Gauge("outbox_pending", "Accepted notifications that are not dispatched yet.")
outbox_oldest_seconds = Gauge("outbox_oldest_seconds", "Age of the oldest of them.")
publishes = Counter("publish", "Publishes to RabbitMQ.", ["outcome"])
publish_confirm_seconds = Histogram("publish_confirm_seconds", "Until RabbitMQ confirmed.", buckets=_LATENCY_S)
amqp_blocked = Gauge("amqp_blocked", "1 while RabbitMQ blocks this process's publishers.")
amqp_consumers_expected = Gauge("amqp_consumers_expected", "Consumers this process should have.")
amqp_consumers_alive = Gauge("amqp_consumers_alive", "Consumers it has.")
amqp_reconnects = Counter("amqp_reconnects", "Connections to RabbitMQ opened again.", ["link"])
notifications_accepted = Counter("notifications_accepted", "Notifications accepted.", ["source"])
deliveries = Counter("deliveries", "Deliveries by outcome.", ["channel", "outcome"])
deliveries_waiting = Gauge(
    "deliveries_waiting",
    "Deliveries over outgoing channels that have not ended; `held` ones wait for room in their channel's queue.",
    ["status"],
)
delivery_attempts = Counter("delivery_attempts", "Attempts made on outgoing channels.", ["channel", "outcome"])
delivery_seconds = Histogram("delivery_seconds", "Until a provider answered.", ["channel"], buckets=_LATENCY_S)
breakers_open = Gauge("breakers_open", "Provider accounts and endpoints that are left alone now.", ["channel"])
breaker_changes = Counter("breaker_changes", "Changes of circuit breakers' states.", ["channel", "state"])
receipts_dropped = Counter("receipts_dropped", "Receipts that RabbitMQ did not take.")
dead_letters = Counter("dead_letters", "Messages given up.", ["reason"])
dead_letters_waiting = Gauge("dead_letters_waiting", "Given up, and neither replayed nor discarded.", ["reason"])
duplicates_suppressed = Counter("duplicates_suppressed", "Messages that were already there.")
event_loop_lag_seconds = Histogram("event_loop_lag_seconds", "Delay of a timer of this process.", buckets=_LATENCY_S)
template_fallbacks = Counter("template_fallbacks", "Texts in another locale than the reader's.", ["channel"])
