"""Dashboards, alert rules and the scrape configuration, held against what the processes really expose."""

import re
from itertools import combinations
from urllib.parse import urlsplit

import pytest
import yaml
from everloop_kernel.auth import is_open
from unit.deploy.platform_files import ROOT, SERVICES, alert_rules, compose, dashboards, real_series

REAL = real_series()
RECORDED = {
    rule["record"]: {"pipeline", "model_version", "job", "instance"}
    for rule in alert_rules()
    if "record" in rule
}
NAME = re.compile(r"\b(?:everloop[a-z_:]+|up)\b(?!\s*=)")
LABELS = re.compile(r"\b(?:by|on|group_left)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"(everloop[a-z_:]+|up)\{([^}]*)\}")
PANELS = [
    (name, panel)
    for name, board in dashboards().items()
    for panel in board["panels"]
    if panel["type"] != "row"
]
EXPRESSIONS = [
    *(
        pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
        for _, panel in PANELS
        for target in panel["targets"]
    ),
    *(pytest.param(rule["expr"], id=rule.get("alert") or rule["record"]) for rule in alert_rules()),
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_series_and_labels_exist(expression: str) -> None:
    """A query of a series that nobody exposes is an empty panel, or an alert that never fires."""
    known = REAL | RECORDED
    bare = re.sub(r'"[^"]*"', '""', expression)
    names = set(NAME.findall(bare))
    assert names
    assert names <= known.keys(), names - known.keys()
    for found in SELECTOR.finditer(bare):
        used = set(re.findall(r"(\w+)\s*[=!]~?", found[2]))
        assert used <= known[found[1]], (found[1], used)
    grouped = {label.strip() for found in LABELS.finditer(bare) for label in found[1].split(",")}
    assert grouped - {""} <= set().union(*(known[name] for name in names))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_counters_are_read_as_rates(expression: str) -> None:
    """A counter's bare value says when the process last started, not how things are."""
    bare = re.sub(r"\(sum by \([^)]*\) \([^)]*\) unless .*", "", expression)  # a series' first event
    for found in re.finditer(r"(\w+)\s*\(\s*everloop\w+_(?:total|bucket|count|sum)\b", bare):
        shares = "joined_predictions" in expression  # two counters of one process, divided
        assert found[1] in {"rate", "increase"} or shares, found[0]


def test_overview_answers_the_first_questions() -> None:
    """Whoever is woken looks here first."""
    text = " ".join(t["expr"] for _, panel in PANELS for t in panel["targets"])
    for metric in (
        "everloop_consumer_lag_records",
        "everloop_batch_seconds_bucket",
        "everloop_rejected_records_total",
        "everloop_serving_predictions_total",
        "everloop_serving_request_seconds_bucket",
        "everloop_serving_loaded_model_info",
        "everloop_model_daily_loss",
        "everloop_drift_statistic",
    ):
        assert metric in text, metric


@pytest.mark.parametrize("name", dashboards())
def test_dashboard_is_whole(name: str) -> None:
    """Grafana drops a broken dashboard with one line in its log."""
    board = dashboards()[name]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    provisioned = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/everloop.yml").read_text())
    sources = {source["uid"] for source in provisioned["datasources"]}
    boxes = [panel["gridPos"] for panel in board["panels"]]
    for panel in board["panels"]:
        assert panel["title"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] in sources
            assert panel["description"]
    for a, b in combinations(boxes, 2):
        assert (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )


def test_alerts_cover_what_may_go_wrong() -> None:
    """Each of these has cost somebody a night."""
    alerts = {rule["alert"] for rule in alert_rules() if "alert" in rule}
    assert alerts >= {
        "EverloopServiceDown",
        "EverloopConsumerLag",
        "EverloopDeadLetters",
        "EverloopOutboxStuck",
        "EverloopServingErrors",
        "EverloopDriftDetected",
        "EverloopModelLossRose",
    }
    for rule in alert_rules():
        if "alert" in rule:
            assert rule["labels"]["severity"] in {"page", "warn", "info"}
            assert rule["annotations"].keys() == {"summary", "description"}


def test_every_service_is_scraped_where_it_listens() -> None:
    """/metrics is open, so Prometheus needs no token; each target is a service and its port."""
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert "authorization" not in job
    assert is_open(job.get("metrics_path", "/metrics"))
    services = compose()["services"]
    targets = {}
    for entry in job["static_configs"]:
        (target,) = entry["targets"]
        where = urlsplit(f"//{target}")
        assert entry["labels"] == {"job": f"everloop-{where.hostname}"}
        targets[where.hostname] = str(where.port)
    assert targets == {
        name: services[name]["environment"][f"EVERLOOP_{name.upper()}_HTTP_PORT"] for name in SERVICES
    }
