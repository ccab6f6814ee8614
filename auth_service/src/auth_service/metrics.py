"""What this service counts. No user, token or address in any label."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

TOKENS_REJECTED = Counter("auth_token_rejected_total", "Access tokens refused, by reason.", ["reason"])
REFRESH_REUSED = Counter("auth_refresh_reuse_total", "Refresh tokens that came a second time and ended their session.")
LOGINS = Counter("auth_logins_total", "Logins with a password, by outcome.", ["outcome"])
RATE_LIMITED = Counter("auth_rate_limited_total", "Requests refused because there were too many.")
REQUESTS = Counter("http_requests_total", "Requests answered.", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "http_request_seconds",
    "Time from the request to the answer.",
    ["method", "route"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
PUBLISHED = Counter("publish_total", "Identity events handed to RabbitMQ, by outcome.", ["outcome"])
PUBLISH_SECONDS = Histogram(
    "publish_confirm_seconds",
    "Time until RabbitMQ confirmed an identity event.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
)
MAILS = Counter("auth_mails_total", "Mails handed to the mail server, by outcome.", ["outcome"])
