"""The frame around HTML texts: the tenant's name, colour, logo and footer, and the way to unsubscribe. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final

from notification_service.templates.sandbox import Compiled, mark_safe

# Tables and inline styles: many mail programs understand little else.
DEFAULT_LAYOUT: Final = """<!DOCTYPE html>
<html lang="{{ data.locale }}"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ data.title }}</title></head>
<body style="margin:0;background:#f4f5f7;font-family:Helvetica,Arial,sans-serif;color:#1f2328">
<table role="presentation" width="100%" cellpadding="0" cellspacing="0"><tr><td align="center" style="padding:24px">
<table role="presentation" width="600" cellpadding="0" cellspacing="0" style="max-width:600px;background:#ffffff">
<tr><td style="padding:16px 24px;border-top:4px solid {{ tenant.color | default('#3355cc') }}">
{% if tenant.logo_url is defined %}<img src="{{ tenant.logo_url }}" alt="{{ tenant.name }}" height="32">
{% else %}<strong>{{ tenant.name }}</strong>{% endif %}</td></tr>
<tr><td style="padding:8px 24px 24px">{{ data.content }}</td></tr>
<tr><td style="padding:16px 24px;font-size:12px;color:#656d76">{{ tenant.footer | default('') }}
{% if data.unsubscribe_url %}<a href="{{ data.unsubscribe_url }}">Unsubscribe</a>{% endif %}</td></tr>
</table></td></tr></table></body></html>"""


@lru_cache(maxsize=256)
def _compile(layout: str) -> Compiled:
    return Compiled(layout, is_html=True)


def apply_layout(
    layout: str | None,
    html: str,
    *,
    title: str | None,
    locale: str,
    tenant: Mapping[str, Any],
    unsubscribe_url: str | None,
    cpu_time: Callable[[], float],
) -> str:
    """A whole HTML document.

    Args:
        layout: The tenant's own (`data.content` is where the text goes); None: Herald's.
        html: Rendered with escaping.

    Raises:
        RenderFailed: The layout cannot be rendered.
    """
    data = {"content": mark_safe(html), "title": title or "", "locale": locale, "unsubscribe_url": unsubscribe_url}
    return _compile(layout or DEFAULT_LAYOUT).render({"data": data, "tenant": tenant}, cpu_time=cpu_time)
