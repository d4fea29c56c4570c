"""Alert rules and dashboards in the hands of Prometheus's own tool, where it is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from unit.deploy.platform_files import ROOT, dashboards

PROMTOOL = shutil.which("promtool")
HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (Debian: apt-get install prometheus)"
)


def promtool(*arguments: str) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *arguments], cwd=HERE, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_configuration_and_rules_are_sound() -> None:
    """Prometheus does not start with a broken file, and then nobody is told anything."""
    promtool("check", "config", str(ROOT / "deploy/prometheus/prometheus.yml"))


def test_alerts_fire_when_they_should_and_only_then() -> None:
    """An alert that is silent in the night, or loud for nothing, is worse than none."""
    promtool("test", "rules", "rules_test.yml")


def test_dashboards_queries_parse(tmp_path: Path) -> None:
    """A panel with a broken query is a red corner, seen when it is needed."""
    panels = [panel for board in dashboards().values() for panel in board["panels"]]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    plain = [q.replace("$__rate_interval", "5m").replace("$pipeline", ".*") for q in queries]
    rules = [{"record": f"panel:query:{number}", "expr": query} for number, query in enumerate(plain)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(file))
