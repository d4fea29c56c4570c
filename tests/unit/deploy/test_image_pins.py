"""The pins that an image is made from: exactly what its service needs."""

import re
import tomllib
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from unit.deploy.platform_files import ROOT, SERVICES

PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)(?:\s*;\s*([^\\]+?))?\s*\\$", re.MULTILINE)
FOLDERS = ("*", "shared/*", "services/*")
PROJECTS = [
    tomllib.loads(path.read_text())["project"]
    for folder in FOLDERS
    for path in ROOT.glob(f"{folder}/pyproject.toml")
]
OURS = {project["name"]: project for project in PROJECTS}

Seen = set[tuple[str, frozenset[str]]]


def pins(name: str) -> dict[str, str]:
    """Version by distribution, of the lines whose condition holds on this machine."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    found = {}
    for project, version, marker in PIN.findall(text):
        if not marker or Requirement(f"x; {marker}").marker.evaluate():
            found[canonicalize_name(project)] = version
    return found


def needs_of(name: str, extras: frozenset[str]) -> list[Requirement]:
    """What a distribution asks for on this machine; ours as its file says now, whatever is installed."""
    if name in OURS:
        optional = OURS[name].get("optional-dependencies", {})
        groups = [OURS[name]["dependencies"], *(optional[extra] for extra in extras)]
        return [Requirement(text) for group in groups for text in group]
    found = [Requirement(text) for text in distribution(name).requires or []]
    return [need for need in found if any(_holds(need, extra) for extra in ("", *extras))]


def _holds(need: Requirement, extra: str) -> bool:
    return need.marker is None or need.marker.evaluate({"extra": extra})


def closure(name: str, extras: frozenset[str], seen: Seen) -> Seen:
    """Everything that a distribution needs with these extras, through all levels."""
    for need in needs_of(name, extras):
        key = (canonicalize_name(need.name), frozenset(need.extras))
        if key not in seen:
            seen.add(key)
            closure(*key, seen)
    return seen


@pytest.mark.parametrize("service", SERVICES)
def test_pins_are_the_service_s_needs_and_no_more(service: str) -> None:
    """A missing pin breaks the image; one too many is one more thing to attack and to keep up to date."""
    extras = frozenset(OURS[f"everloop-{service}"].get("optional-dependencies", ()))  # images have them all
    needed = {name for name, _ in closure(f"everloop-{service}", extras, set())}
    assert set(pins(f"everloop-{service}")) == needed - OURS.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_images_run_what_was_tested(service: str) -> None:
    """A service must not run in its image on other versions than in its tests."""
    tested = pins("dev")
    own = pins(f"everloop-{service}")
    assert own == {name: tested[name] for name in own}


def test_backend_is_pinned() -> None:
    """Our wheels are built by hatchling alone: a version of its own choice could change them."""
    assert "hatchling" in pins("build")
