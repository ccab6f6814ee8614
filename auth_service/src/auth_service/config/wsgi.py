"""What the server calls."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auth_service.config.settings")

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from auth_service.api.body import read_chunked

django_application = get_wsgi_application()

from auth_service.accounts.passwords import hash_of_nobody  # noqa: E402 - needs the applications
from auth_service.tokens.access_tokens import key_folder  # noqa: E402

key_folder().ensure(settings.HERALD.signing_algorithm, publish_ahead=settings.HERALD.key_publish_ahead)
hash_of_nobody()

application = read_chunked(django_application, max_bytes=settings.HERALD.max_body_bytes)
