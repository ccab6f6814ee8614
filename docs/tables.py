"""The parts of the documentation that are made from the code: tables as Markdown, by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

ROOT = Path(__file__).resolve().parents[1]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(cell.replace("\n", " ") for cell in line) + " |" for line in lines)


def show(default: Any) -> str:
    """A default as the environment variable would spell it."""
    match default:
        case None | () | "":
            return ""
        case SecretStr():
            return "development only"
        case timedelta():
            return f"`{show_item(default)}`"
        case bool():
            return f"`{int(default)}`"
        case Enum():
            return f"`{default.value}`"
        case tuple():
            return f"`{','.join(show_item(each) for each in default)}`"
        case _:
            return f"`{default}`"


def show_item(value: Any) -> str:
    """One of several, separated by commas."""
    if not isinstance(value, timedelta):
        return str(value)
    seconds = value.total_seconds()
    return str(int(seconds)) if seconds.is_integer() else str(seconds)


def settings_table(model: type[BaseModel], variable_of: Callable[[str], str]) -> str:
    """Every setting with its variable, its default and what it does."""
    rows = [
        (f"`{variable_of(name)}`", show(field.get_default(call_default_factory=True)), field.description or "")
        for name, field in model.model_fields.items()
    ]
    return table(("setting", "default", "what it does"), rows)


def metrics_table() -> str:
    """Every metric this process registered, as Prometheus shows it."""
    from prometheus_client import REGISTRY  # noqa: PLC0415 - each service is read in a process of its own
    from prometheus_client.metrics import MetricWrapperBase  # noqa: PLC0415

    found = {
        each
        for each in REGISTRY._collector_to_names  # noqa: SLF001 - collect() hides metrics with labels and no value yet
        if isinstance(each, MetricWrapperBase)
    }
    rows = []
    for metric in found:
        described = next(iter(metric.describe()))
        name = described.name + ("_total" if described.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - has no public name
        rows.append((f"`{name}`", described.type, labels, described.documentation))
    return table(("metric", "type", "labels", "what it counts"), sorted(rows))


def routes_table(document: Mapping[str, Any], need_of: Callable[[str, str, Mapping[str, Any]], str]) -> str:
    """Every call of an OpenAPI document."""
    rows = [
        (f"`{method.upper()} {path}`", need_of(path, method, operation), operation.get("summary", ""))
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    by_path = sorted(rows, key=lambda row: row[0].partition(" ")[2])
    return table(("call", "needs", "what it does"), by_path)


# --- each service in a process of its own -------------------------------------------------------------------------


def make_auth_parts() -> dict[str, str]:
    """What the auth service's code says. Sets Django up."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "auth_service.config.settings")
    import django  # noqa: PLC0415 - settings first

    django.setup()
    from django.urls import URLPattern, URLResolver, get_resolver  # noqa: PLC0415
    from drf_spectacular.generators import SchemaGenerator  # noqa: PLC0415

    from auth_service.config.environment import AuthSettings  # noqa: PLC0415
    from auth_service.errors import ServiceError  # noqa: PLC0415

    def walk(patterns: Iterable[Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        for each in patterns:
            if isinstance(each, URLResolver):
                yield from walk(each.url_patterns, prefix + str(each.pattern))
            elif isinstance(each, URLPattern):
                yield prefix + str(each.pattern), each.callback

    rules: dict[str, Any] = {
        "/" + path.replace("<uuid:", "{").replace("<str:", "{").replace(">", "}"): view.view_class.access
        for path, view in walk(get_resolver().url_patterns)
        if hasattr(getattr(view, "view_class", None), "access")
    }

    def need_of(path: str, method: str, _operation: Mapping[str, Any]) -> str:
        rule = rules[path][method.upper()]
        if isinstance(rule, str):
            return f"`{rule}`"
        words: dict[str, str] = {
            "PUBLIC": "",
            "CALLER": "any token",
            "USER": "a user's token",
            "ADMIN": "role `admin`",
            "OPERATOR_ADMIN": "role `admin` of tenant `default`",
            "INTERNAL": "internal key",
            "OPERATOR": "operator",
        }
        return words[rule.name]

    def variable_of(name: str) -> str:
        return str(AuthSettings.model_fields[name].validation_alias or f"AUTH_{name}".upper())

    document = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return {
        "settings-auth": settings_table(AuthSettings, variable_of),
        "metrics-auth": metrics_table(),
        "routes-auth": routes_table(document, need_of),
        "errors-auth": json.dumps(statuses_by_code(ServiceError)),
    }


def make_notification_parts() -> dict[str, str]:
    """What the notification service's code says."""
    from notification_service.entrypoints.api import make_api  # noqa: PLC0415
    from notification_service.entrypoints.parts import Parts  # noqa: PLC0415
    from notification_service.errors import ServiceError  # noqa: PLC0415
    from notification_service.settings import Settings  # noqa: PLC0415

    def need_of(path: str, _method: str, operation: Mapping[str, Any]) -> str:
        if path == "/metrics":
            return "operator"
        if "x-scopes" not in operation:
            return ""
        return " ".join(f"`{scope}`" for scope in operation["x-scopes"]) or "any token"

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(_env_file=None, run_dir=Path(folder))
        document = make_api(Parts(settings, process="api")).openapi()
    return {
        "settings-notification": settings_table(Settings, Settings.variable_of),
        "metrics-notification": metrics_table(),
        "routes-notification": routes_table(document, need_of),
        "errors-notification": json.dumps(statuses_by_code(ServiceError)),
    }


def statuses_by_code(base: type[Any]) -> dict[str, list[int]]:
    """The HTTP statuses a code comes with."""
    found: dict[str, set[int]] = {}
    waiting = list(base.__subclasses__())
    while waiting:
        each = waiting.pop()
        waiting += each.__subclasses__()
        if hasattr(each, "code") and hasattr(each, "status"):
            found.setdefault(str(each.code), set()).add(each.status)
    return {code: sorted(statuses) for code, statuses in found.items()}


def read_parts(which: str) -> dict[str, str]:
    """The parts of one service, made in a process of its own: both register metrics of the same name."""
    known = ("PATH", "HOME", "PYTHONPATH", "LANG")
    environment = {name: os.environ[name] for name in known if name in os.environ}
    with tempfile.TemporaryDirectory() as folder:
        # Nothing of this machine's settings: the tables show the defaults.
        done = subprocess.run(  # noqa: S603 - this very file
            [sys.executable, "-W", "ignore", __file__, which],
            cwd=folder,
            env={**environment, "HERALD_RUN_DIR": ".run"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"docs     | reading the {which} service failed:\n{done.stderr}")
    parts: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return parts


# --- shared contracts ---------------------------------------------------------------------------------------------


def make_shared_parts() -> dict[str, str]:
    """What both services agree on."""
    from shared_contracts.scopes import ASSIGNABLE_ROLES, ROLE_SCOPES, Role, Scope  # noqa: PLC0415
    from shared_contracts.topology import TOPOLOGY  # noqa: PLC0415
    from shared_contracts.ws.close_codes import CloseCode  # noqa: PLC0415
    from shared_contracts.ws.frames import CLIENT_FRAMES, SERVER_FRAMES  # noqa: PLC0415

    roles = [
        (f"`{scope}`", *("yes" if scope in ROLE_SCOPES[Role(role)] else "" for role in ASSIGNABLE_ROLES))
        for scope in Scope
    ]
    exchanges = [(f"`{each.name}`", each.type) for each in TOPOLOGY.exchanges]
    queues = [
        (
            f"`{each.name}`",
            each.type,
            ", ".join(
                f"`{binding.exchange.name}`" + (f" key `{binding.routing_key}`" if binding.routing_key else "")
                for binding in TOPOLOGY.bindings
                if binding.queue is each
            ),
            "yes" if each.single_active_consumer else "",
            f"`{each.dead_letter_to}`" if each.dead_letter_to else "",
        )
        for each in TOPOLOGY.queues
    ]
    codes = [(str(int(code)), f"`{code.name}`", "yes" if code.may_reconnect else "no") for code in CloseCode]
    return {
        "roles": table(("scope", *(f"`{role}`" for role in ASSIGNABLE_ROLES)), roles),
        "exchanges": table(("exchange", "type"), exchanges),
        "queues": table(("queue", "type", "bound to", "one consumer at a time", "gives up to"), queues),
        "close-codes": table(("code", "name in the code", "reconnect"), codes),
        "frames-client": table(("frame", "fields", "what it does"), frame_rows(CLIENT_FRAMES)),
        "frames-server": table(("frame", "fields", "what it says"), frame_rows(SERVER_FRAMES)),
    }


def frame_rows(frames: Mapping[str, type[BaseModel]]) -> Iterator[tuple[str, str, str]]:
    """Frames with their fields; those that may be left out end in `?`."""
    for name, model in frames.items():
        fields = [
            f"`{field}`" + ("" if described.is_required() else "?")
            for field, described in model.model_fields.items()
            if field not in {"type", "ref"}
        ]
        summary = " ".join((model.__doc__ or "").strip().split("\n\n")[0].split())
        yield f"`{name}`", ", ".join(fields), summary


def make_decision_list() -> str:
    """All decision records."""
    rows = []
    for path in sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md")):
        lines = path.read_text().splitlines()
        number, _, title = lines[0].removeprefix("# ").partition(" ")
        status = next((line.removeprefix("Status: ") for line in lines if line.startswith("Status: ")), "accepted")
        rows.append((f"[{number.rstrip('.')}]({path.name})", title, status))
    return table(("record", "decision", "status"), rows)


def make_page_list() -> str:
    """All pages of this folder, by their titles."""
    rows = []
    for path in sorted((ROOT / "docs").glob("*.md")):
        if path.name != "README.md":
            title = path.read_text().partition("\n")[0].removeprefix("# ")
            rows.append((f"[{path.name}]({path.name})", title))
    return table(("page", "about"), [*rows, ("[decisions/](decisions/README.md)", "Why it is built this way")])


if __name__ == "__main__":
    print(json.dumps(make_auth_parts() if sys.argv[1] == "auth" else make_notification_parts()))  # noqa: T201
