"""compose.yaml, the Dockerfile and the monitoring files, as the tests read them."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import yaml
from everloop_kernel.settings import KafkaSettings, PlatformSettings, PostgresSettings, Settings
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ("ingest", "feature", "trainer", "registry", "serving", "monitor")
RECORDERS = ("trainer", "registry", "monitor")

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
_SUFFIXES = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""]}


def compose() -> dict[str, Any]:
    """compose.yaml as it is written, variables and all."""
    return yaml.safe_load((ROOT / "compose.yaml").read_text())


def filled_in(value: Any) -> str:
    """A value with every variable's default; one that must be set becomes `<name>`."""
    return _VARIABLE.sub(lambda m: m[3] if m[2] == "-" else f"<{m[1]}>", str(value))


def variables_in(value: Any) -> list[tuple[str, str | None, str | None]]:
    """(name, `-` or `?`, default or message) of each variable."""
    return [(m[1], m[2], m[3]) for m in _VARIABLE.finditer(str(value))]


def settings_of(service: str) -> list[type[Settings]]:
    """The settings classes that a service's wiring reads."""
    module = importlib.import_module(f"everloop_{service}.settings")
    own = getattr(module, f"{service.capitalize()}Settings")
    return [own, KafkaSettings, PlatformSettings, *([PostgresSettings] if service in RECORDERS else [])]


def variables_of(classes: list[type[Settings]]) -> set[str]:
    """Every environment variable that these classes read."""
    return {one.variable(field) for one in classes for field in one.model_fields}


def dockerfile() -> list[tuple[str, str]]:
    """(instruction, arguments) in order, continued lines joined, without comments."""
    text = (ROOT / "deploy/Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(word.upper(), " ".join(rest.split())) for word, rest in pairs]


def dashboards() -> dict[str, dict[str, Any]]:
    """Every Grafana dashboard by its file's name."""
    return {
        path.name: json.loads(path.read_text())
        for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")
    }


def alert_rules() -> list[dict[str, Any]]:
    """Every rule of every group."""
    files = (ROOT / "deploy/prometheus/rules").glob("*.yml")
    return [
        rule
        for file in files
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


def real_series() -> dict[str, set[str]]:
    """The labels of every series that our processes expose, by the series' name."""
    importlib.import_module("everloop_kernel.metrics")
    for service in SERVICES:
        if importlib.util.find_spec(f"everloop_{service}.metrics"):
            importlib.import_module(f"everloop_{service}.metrics")
    found = {"up": {"job", "instance"}}
    for collector in list(REGISTRY._collector_to_names):
        if isinstance(collector, MetricWrapperBase):
            found |= _series(collector._name, collector._type, collector._labelnames)
    hot = importlib.import_module("everloop_serving.metrics").HotMetrics()
    for family in hot.collect():
        found |= _series(family.name, family.type, family._labelnames)
    return found


def _series(name: str, kind: str, labels: Any) -> dict[str, set[str]]:
    extra = {"job", "instance", *(["le"] if kind == "histogram" else [])}
    return {name + suffix: {*labels, *extra} for suffix in _SUFFIXES[kind]}
