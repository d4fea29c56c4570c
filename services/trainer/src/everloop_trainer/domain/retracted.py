"""How a retraction is written among the labels."""

from typing import Final

__all__ = ["RETRACTED"]

RETRACTED: Final = '{"$retraction":true}'
"""The fields of a retraction, which stands among the labels: no field is named so, so it has no value."""
