"""The files of production say what the code says: settings, definitions, images, manifests, alarms (J02)."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_file import MADE_UP, ROOT, read_compose

from auth_service.config.environment import AuthSettings
from notification_service.settings import Settings

DEPLOY = ROOT / "deploy"
LOADERS = {
    "auth": "from auth_service.config.environment import load_environment; load_environment()",
    "notify": "from notification_service.entrypoints.cli import load_settings; load_settings()",
}


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for each in yaml.safe_load_all(path.read_text()):
            yield path.name, each


def load(which: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LOADERS[which]],
        env={"PATH": "/usr/bin:/bin", **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return read_compose(MADE_UP)


@pytest.fixture(scope="module")
def variables() -> set[str]:
    """Everything the services read."""
    auth = {str(field.validation_alias or f"AUTH_{name}".upper()) for name, field in AuthSettings.model_fields.items()}
    return auth | {Settings.variable_of(name) for name in Settings.model_fields}


# --- Compose ------------------------------------------------------------------------------------------------------


def test_the_example_names_every_variable_that_compose_wants() -> None:
    example = (DEPLOY / "compose.env.example").read_text()
    named = set(re.findall(r"^([A-Z_]+)=", example, re.MULTILINE))
    wanted = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    assert wanted == set(MADE_UP)
    assert wanted <= named
    for secret in MADE_UP:
        assert re.search(rf"^{secret}=$", example, re.MULTILINE), f"{secret} has a value in the example"


@pytest.mark.parametrize("missing", sorted(MADE_UP))
def test_compose_refuses_to_start_without_a_secret(missing: str) -> None:
    with pytest.raises(AssertionError, match=missing):
        read_compose({**MADE_UP, missing: ""})


@pytest.mark.req("J02")
def test_every_process_starts_in_production_with_the_settings_compose_gives_it(
    compose: dict[str, Any], variables: set[str], tmp_path: Path
) -> None:
    own = {name: each for name, each in compose["services"].items() if "build" in each}
    assert set(own) == {
        *("auth", "auth-background", "auth-migrate"),
        *("api", "gateway", "worker", "scheduler", "notify-migrate"),
    }
    seen = set()
    for name, service in own.items():
        environment = {key: str(value) for key, value in service["environment"].items()}
        assert environment["HERALD_ENV"] == "production"
        assert set(environment) <= variables, name
        which = "auth" if service["image"] == "herald-auth" else "notify"
        if which not in seen:
            done = load(which, environment, tmp_path)
            assert done.returncode == 0, done.stderr
            seen.add(which)
        assert (ROOT / service["build"]["dockerfile"]).exists()
    assert seen == set(LOADERS)


def test_no_process_of_compose_has_more_rights_than_it_needs(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if "build" not in service:
            continue
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert "ports" not in service, f"{name} is reachable past nginx"
    assert [name for name, each in compose["services"].items() if "ports" in each] == ["nginx"]


def test_compose_gives_rabbitmq_the_policies_of_the_definitions(compose: dict[str, Any]) -> None:
    given = json.loads(compose["configs"]["rabbitmq-definitions"]["content"])
    kept = json.loads((DEPLOY / "rabbitmq" / "definitions.json").read_text())
    assert given["policies"] == kept["policies"]
    assert given["vhosts"] == kept["vhosts"]
    assert given["users"][0]["password"] == MADE_UP["RABBITMQ_PASSWORD"]
    for mounted in compose["services"]["rabbitmq"]["configs"]:
        assert mounted["source"] in compose["configs"]


def test_what_compose_mounts_exists(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in compose["volumes"], (name, volume)
        for needed in service.get("depends_on", {}):
            assert needed in compose["services"], (name, needed)


# --- images -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", ["auth_service", "notification_service"])
def test_an_image_pins_by_hash_runs_without_root_and_tells_its_health(member: str) -> None:
    text = (ROOT / member / "Dockerfile").read_text()
    installs = re.findall(r"pip install ([^\\\n]*)", text)
    assert len(installs) == 3
    for install in installs:
        assert "--require-hashes" in install or "--no-deps --no-index" in install, install
    final = text.rpartition("FROM ")[2]
    assert re.search(r"^USER 10001$", final, re.MULTILINE)
    assert "HEALTHCHECK" in final
    assert not re.search(r"(?i)(secret|password|token)\s*=", text)
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for source in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE):
        for each in source.split():
            assert (ROOT / each).exists(), each
            assert any(kept == each or kept.startswith(f"{each}/") for kept in allowed), f"{each} is ignored"


def test_the_packages_of_the_images_are_pinned() -> None:
    for lock in ("auth_service/requirements.txt", "notification_service/requirements.txt", "requirements/build.txt"):
        text = (ROOT / lock).read_text()
        packages = re.findall(r"^([a-z0-9-]+)(?:\[[^\]]*\])?==", text, re.MULTILINE)
        assert len(packages) > 3, lock
        assert text.count("--hash=sha256:") >= len(packages), lock
        assert "://" not in text, f"{lock} names an address"


# --- Kubernetes ---------------------------------------------------------------------------------------------------


def test_the_kustomization_names_every_manifest() -> None:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert set(kustomization["resources"]) == files - {"kustomization.yaml", "secret.example.yaml"}


def test_kubernetes_sets_what_production_needs(variables: set[str], tmp_path: Path) -> None:
    by_kind = {each["kind"]: each for _, each in manifests() if each["kind"] in {"ConfigMap", "Secret"}}
    plain, secret = by_kind["ConfigMap"]["data"], by_kind["Secret"]["stringData"]
    assert set(plain) | set(secret) <= variables
    assert not set(plain) & set(secret)
    assert set(secret.values()) == {""}, "the example holds a secret"
    filled = {
        **plain,
        "INTERNAL_SERVICE_KEY": MADE_UP["INTERNAL_SERVICE_KEY"],
        "AUTH_SECRET_KEY": MADE_UP["AUTH_SECRET_KEY"],
        "AMQP_URL": "amqps://herald:a-password@rabbitmq:5671/",
        "AUTH_DATABASE_URL": "postgresql://auth:a-password@postgresql/auth",
        "NOTIFY_DATABASE_URL": "postgresql://notify:a-password@postgresql/notify",
    }
    assert set(secret) == set(filled) - set(plain)
    for which in LOADERS:
        done = load(which, filled, tmp_path)
        assert done.returncode == 0, done.stderr


def test_every_pod_runs_without_root_and_tells_its_health() -> None:
    commands: dict[str, list[str]] = {}
    for name, each in manifests():
        if each["kind"] not in {"Deployment", "Job"}:
            continue
        pod = each["spec"]["template"]["spec"]
        container = pod["containers"][0]
        commands[each["metadata"]["name"]] = container["args"]
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert container["resources"]["limits"]["memory"], name
        if "ports" in container:
            assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
            assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
            assert container["args"][-1] == str(container["ports"][0]["containerPort"])
        if each["kind"] == "Deployment":
            assert (
                each["spec"]["selector"]["matchLabels"].items()
                <= each["spec"]["template"]["metadata"]["labels"].items()
            )
            assert pod["terminationGracePeriodSeconds"] > 30
    assert {name: arguments[0] for name, arguments in commands.items()} == {
        "auth": "serve",
        "auth-background": "background",
        "auth-migrate": "migrate",
        "notify-migrate": "migrate",
        **{name: name for name in ("api", "gateway", "worker", "scheduler")},
    }


# --- alarms -------------------------------------------------------------------------------------------------------


def known_metrics() -> set[str]:
    """The metrics of docs/metrics.md, which `make docs-check` compares with the code."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    found = {name for name, _ in rows}
    found |= {f"{name}_{part}" for name, type_ in rows if type_ == "histogram" for part in ("bucket", "sum", "count")}
    return found | {"up"}


def used_metrics(expression: str) -> set[str]:
    bare = re.sub(r'\{[^}]*\}|"[^"]*"|\[[^\]]*\]|\b(?:by|without) *\([^)]*\)', "", expression)
    functions = set(re.findall(r"(\w+) *\(", bare)) | {"and", "or", "unless", "by", "without", "bool"}
    return set(re.findall(r"\b[a-z_]\w+\b", bare)) - functions


def test_alarms_use_metrics_that_exist_and_are_explained() -> None:
    rules = [
        rule
        for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    for rule in rules:
        assert used_metrics(rule["expr"]) <= known_metrics(), rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
    explained = set(re.findall(r"^\| `(Herald\w+)` \|", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE))
    assert explained == {rule["alert"] for rule in rules}


def test_the_dashboard_uses_metrics_that_exist() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "herald.json").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 10
    for expression in expressions:
        assert used_metrics(expression) <= known_metrics(), expression


def test_prometheus_reads_the_rules_and_every_process() -> None:
    prometheus = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    assert [(DEPLOY / "prometheus" / name).exists() for name in prometheus["rule_files"]] == [True]
    jobs = {job["job_name"]: job for job in prometheus["scrape_configs"]}
    names = jobs["herald-notify"]["dns_sd_configs"][0]["names"]
    assert set(names) == {"api", "gateway", "worker", "scheduler"}
    for job in ("herald-auth", "herald-notify"):
        assert list(jobs[job]["http_headers"]) == ["X-Internal-Key"]
