"""Django's settings, all derived from the checked environment. Importing this touches no file, database or network."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import dj_database_url

from auth_service.config.environment import load_environment
from shared_contracts.service_log import configure_logging

HERALD = load_environment()

SECRET_KEY = HERALD.secret_key.get_secret_value()
SECRET_KEY_FALLBACKS = [key.get_secret_value() for key in HERALD.secret_key_fallbacks]
DEBUG = False  # a debug page shows settings and source; the log has the traceback
ALLOWED_HOSTS = list(HERALD.allowed_hosts)

INSTALLED_APPS = [
    "auth_service.config.apps.ConfigApp",  # first: its `migrate` takes a lock around Django's
    "auth_service.tenants.apps.TenantsApp",
    "auth_service.accounts.apps.AccountsApp",
    "auth_service.groups.apps.GroupsApp",
    "auth_service.sessions.apps.SessionsApp",
    "auth_service.service_accounts.apps.ServiceAccountsApp",
    "auth_service.tokens.apps.TokensApp",
    "auth_service.audit.apps.AuditApp",
    "auth_service.identity_events.apps.IdentityEventsApp",
    "auth_service.rate_limits.apps.RateLimitsApp",
    "auth_service.internal_api.apps.InternalApiApp",
    "auth_service.config.apps.HeraldAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "corsheaders",
]

MIDDLEWARE = [
    "auth_service.api.middleware.CorrelationMiddleware",  # outermost: every answer has an id and a log line
    "auth_service.api.middleware.ProblemMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "auth_service.api.middleware.SecurityHeadersMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "auth_service.api.middleware.PathMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).resolve().parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

ROOT_URLCONF = "auth_service.config.urls"
WSGI_APPLICATION = "auth_service.config.wsgi.application"
APPEND_SLASH = False  # PathMiddleware takes both forms without a redirect, which would lose a POST
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"


def _make_database() -> dict[str, Any]:
    timeout_s = HERALD.database_timeout.total_seconds()
    database: dict[str, Any] = dict(dj_database_url.parse(HERALD.database_address))
    if database["ENGINE"].endswith("sqlite3"):
        database["OPTIONS"] = {
            # IMMEDIATE: a transaction that reads first and writes later would fail, not wait, when another process
            # wrote in between.
            "transaction_mode": "IMMEDIATE",
            "timeout": timeout_s,
            "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;PRAGMA cache_size=-16000",
        }
        database["CONN_MAX_AGE"] = None
        return database
    database["CONN_MAX_AGE"] = 0  # the pool keeps connections
    database["ENGINE"] = "auth_service.postgresql"
    database["OPTIONS"] = {
        **database.get("OPTIONS", {}),
        "connect_timeout": max(1, round(timeout_s)),
        "options": f"-c statement_timeout=15000 -c lock_timeout={int(timeout_s * 1_000)} "
        "-c idle_in_transaction_session_timeout=30000 -c timezone=UTC",
        "pool": {
            "min_size": 1,
            "max_size": HERALD.database_pool_size,
            "timeout": timeout_s,
            # The pool doubles its pauses until then: beyond it, whoever asks next makes it try at once. By its own
            # default (5 min) it would come back up to two minutes after the database.
            "reconnect_timeout": timeout_s,
            "name": "auth",
        },
    }
    return database


DATABASES = {"default": _make_database()}
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
}  # what must be shared is in the database

SILENCED_SYSTEM_CHECKS = ["auth.W004"]  # logins look at username_key, which is unique
AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = ["auth_service.accounts.backends.AccountBackend"]
PASSWORD_HASHERS = ["auth_service.accounts.passwords.Argon2Hasher"]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": HERALD.password_min_length},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "auth_service.accounts.passwords.NotTheNameValidator"},
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True  # straight from the installed packages: nothing to collect before a start
WHITENOISE_AUTOREFRESH = False

_SECURE = HERALD.is_production if HERALD.secure_cookies is None else HERALD.secure_cookies
SESSION_COOKIE_SECURE = _SECURE
SESSION_COOKIE_NAME = "herald_admin"
SESSION_COOKIE_AGE = 8 * 3600  # a working day
SESSION_COOKIE_SAMESITE = "Strict"
CSRF_COOKIE_SECURE = _SECURE
CSRF_COOKIE_NAME = "herald_csrf"
CSRF_TRUSTED_ORIGINS = list(HERALD.csrf_trusted_origins)
CSRF_FAILURE_VIEW = "auth_service.api.problems.csrf_failure"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "no-referrer"
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if HERALD.is_production else 0
X_FRAME_OPTIONS = "DENY"
# The proxy that ends TLS sets it; gunicorn drops it unless the peer is a trusted proxy.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HERALD.trusted_proxies else None

CORS_ALLOWED_ORIGINS = list(HERALD.cors_origins)
CORS_ALLOW_CREDENTIALS = False  # the API takes bearer tokens, never cookies
CORS_URLS_REGEX = r"^/(api|\.well-known)/.*$"
CORS_EXPOSE_HEADERS = ["X-Correlation-Id", "Retry-After"]
CORS_ALLOW_HEADERS = ["authorization", "content-type", "x-correlation-id", "accept"]

DATA_UPLOAD_MAX_MEMORY_SIZE = HERALD.max_body_bytes
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["auth_service.api.authentication.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["auth_service.api.access.DeclaredAccess"],
    "DEFAULT_PARSER_CLASSES": ["auth_service.api.parsers.StrictJsonParser"],
    "DEFAULT_RENDERER_CLASSES": ["auth_service.api.renderers.JsonRenderer"],
    "DEFAULT_SCHEMA_CLASS": "auth_service.api.schema.HeraldAutoSchema",
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "auth_service.api.renderers.JsonOnly",
    "EXCEPTION_HANDLER": "auth_service.api.problems.handle_exception",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
    "URL_FORMAT_OVERRIDE": None,
    "DATETIME_FORMAT": "iso-8601",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Herald auth service",
    "DESCRIPTION": "Users, roles, groups, sessions and tokens: the single source of truth about who may do what.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": [],
    "SCHEMA_PATH_PREFIX": r"/(api|internal)/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SORT_OPERATIONS": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "auth_service.api.schema.add_problems",
    ],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "accessToken": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            "internalKey": {"type": "apiKey", "in": "header", "name": "X-Internal-Key"},
        }
    },
}

LOGGING_CONFIG = None
configure_logging("auth", level=HERALD.log_level)
# Every request has its own line; only what carries a traceback is news.
logging.getLogger("django.request").addFilter(lambda record: record.exc_info is not None)
for _name in ("aiormq", "aio_pika"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)  # whoever connects says what became of it
