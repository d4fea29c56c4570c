"""The reference lists every setting with its real default."""

import importlib
import inspect
from pathlib import Path

import pytest
from everloop.addresses import ClientSettings
from everloop.stack.settings import StackSettings
from everloop_kernel import settings as kernel
from everloop_kernel.settings import Settings

PAGE = Path(__file__).parents[3] / "docs/reference/settings.md"
SERVICES = ("ingest", "feature", "trainer", "registry", "serving", "monitor")


def settings_of(service: str) -> list[type[Settings]]:
    module = importlib.import_module(f"everloop_{service}.settings")
    found = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if issubclass(cls, Settings)]
    return [cls for cls in found if cls.__module__ == module.__name__]


EVERY = [
    kernel.PlatformSettings,
    kernel.KafkaSettings,
    kernel.PostgresSettings,
    StackSettings,
    ClientSettings,
    *(cls for service in SERVICES for cls in settings_of(service)),
]


@pytest.mark.parametrize("settings", EVERY, ids=lambda cls: cls.__name__)
def test_every_variable_is_listed_with_its_default(settings: type[Settings]) -> None:
    """An operator who reads the page must not be told a default that is not there."""
    page = PAGE.read_text()
    for name, field in settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        shown = "" if default is None else f"`{default}`"
        assert f"| `{settings.variable(name)}` | {shown} |" in page, settings.variable(name)
