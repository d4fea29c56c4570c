"""How many rows a comparison with the champion needs."""

from typing import Final

__all__ = ["MINIMUM_COMPARED_ROWS"]

MINIMUM_COMPARED_ROWS: Final = 200
"""Fewer rows that the champion has not seen say too little for a comparison."""
