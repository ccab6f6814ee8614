"""The filters of templates: what a message needs, each bounded, in the reader's language and time zone (Babel/CLDR)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_time
from babel.numbers import format_currency, format_decimal, format_percent
from jinja2 import pass_context
from jinja2.runtime import Context, Undefined
from markupsafe import Markup, escape

from notification_service.local_time import zone_of

_FORMATS: Final = ("short", "medium", "long", "full")
_MAX_LENGTH: Final = 16 * 1024
FALLBACK_LOCALE: Final = "en"


@lru_cache(maxsize=512)
def babel_locale(tag: str) -> Locale:
    """Babel's locale of a BCP 47 tag; the nearest parent it knows, at last English."""
    parts = tag.replace("_", "-").split("-")
    while parts:
        try:
            return _load(Locale.parse("_".join(parts)))
        except (UnknownLocaleError, ValueError):
            parts.pop()
    return _load(Locale.parse(FALLBACK_LOCALE))


def _load(locale: Locale) -> Locale:
    # Babel reads a locale's file, which takes up to a tenth of a second, when its data are first wanted.
    assert locale.number_symbols
    return locale


def _locale(context: Context) -> Locale:
    return babel_locale(context.get("_locale") or FALLBACK_LOCALE)


def _moment(value: Any) -> datetime:
    """A moment from RFC 3339 text or seconds since 1970.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(value, bool):
        raise ValueError("is no moment")  # noqa: TRY004 - templates answer with one kind of error
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(str(value))
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _style(style: str) -> Any:
    if style not in _FORMATS:
        raise ValueError(f"the format is one of {', '.join(_FORMATS)}")
    return style


@pass_context
def _date(context: Context, value: Any, style: str = "medium") -> str:
    moment = _moment(value).astimezone(zone_of(context.get("_timezone")))
    return str(format_date(moment, _style(style), locale=_locale(context)))


@pass_context
def _time(context: Context, value: Any, style: str = "short") -> str:
    zone = zone_of(context.get("_timezone"))
    return str(format_time(_moment(value), _style(style), tzinfo=zone, locale=_locale(context)))


@pass_context
def _datetime(context: Context, value: Any, style: str = "medium") -> str:
    zone = zone_of(context.get("_timezone"))
    return str(format_datetime(_moment(value), _style(style), tzinfo=zone, locale=_locale(context)))


def _number_of(value: Any) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("is no number") from None
    if isinstance(value, bool) or not number.is_finite() or abs(number.adjusted()) > 30:
        raise ValueError("is no number")
    return number


@pass_context
def _number(context: Context, value: Any) -> str:
    return str(format_decimal(_number_of(value), locale=_locale(context)))


@pass_context
def _percent(context: Context, value: Any) -> str:
    return str(format_percent(_number_of(value), locale=_locale(context)))


@pass_context
def _currency(context: Context, value: Any, code: str) -> str:
    return str(format_currency(_number_of(value), code, locale=_locale(context)))


@pass_context
def _plural(context: Context, value: Any, **forms: str) -> str:
    """The form for this number by the language's rules (CLDR: zero, one, two, few, many, other); `#` is the number."""
    number = _number_of(value)
    locale = _locale(context)
    category = locale.plural_form(abs(number))
    form = forms.get(f"exactly_{number}") or forms.get(category) or forms.get("other")
    if form is None:
        raise ValueError(f"plural has no form {category!r} and no form 'other'")
    return form.replace("#", str(format_decimal(number, locale=locale)))


def _default(value: Any, instead: Any = "") -> Any:
    return instead if isinstance(value, Undefined) or value is None else value


def _given(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # a missing variable says so itself
    return value


def _join(values: Any, separator: str = ", ") -> str:
    _given(values)
    if not isinstance(values, list):
        raise ValueError("join takes a list")  # noqa: TRY004 - templates answer with one kind of error
    # 100 entries and 100 characters between them at most: the result is not longer than the data by much.
    return str(separator)[:100].join(str(value) for value in values[:100])


def _truncate(value: Any, length: int = 100, end: str = "…") -> str:
    text = str(_given(value))
    return text if len(text) <= length else text[: max(0, length - len(end))].rstrip() + end


def _length(value: Any) -> int:
    if not isinstance(_given(value), (str, list, dict)):
        raise ValueError("has no length")  # noqa: TRY004 - templates answer with one kind of error
    return len(value)


def _linebreaks(value: Any) -> Markup:
    return Markup("<br>").join(escape(line) for line in str(value)[:_MAX_LENGTH].splitlines())


def _plain(change: Callable[[str], str]) -> Callable[[Any], str]:
    def apply(value: Any) -> str:
        return change(str(_given(value))[:_MAX_LENGTH])

    return apply


@pass_context
def _turns(context: Context, values: Any) -> Any:
    """What a loop goes over: a list, its turns taken from the rendering's budget. Cannot be named in a template."""
    if isinstance(values, Undefined):
        return values
    if not isinstance(values, list):
        raise ValueError("loops go over a list")  # noqa: TRY004 - templates answer with one kind of error
    return context["_herald_budget"].turns_of(values)


FILTERS: Final = MappingProxyType(
    {
        "capitalize": _plain(str.capitalize),
        "currency": _currency,
        "date": _date,
        "datetime": _datetime,
        "default": _default,
        "e": escape,
        "escape": escape,
        "first": lambda values: _given(values)[0],
        "join": _join,
        "last": lambda values: _given(values)[-1],
        "length": _length,
        "linebreaks": _linebreaks,
        "lower": _plain(str.lower),
        "number": _number,
        "percent": _percent,
        "plural": _plural,
        "time": _time,
        "title": _plain(str.title),
        "trim": _plain(str.strip),
        "truncate": _truncate,
        "upper": _plain(str.upper),
        "_turns": _turns,
    }
)
