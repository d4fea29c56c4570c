"""Which revision a migration file is; apart from the rest, so that the child that applies it starts fast."""

from pathlib import Path

__all__ = ["head", "revision"]


def revision(name: str, file: Path) -> str:
    """The revision of a file: `registry_0002` for registry's `0002_….sql`."""
    return f"{name}_{file.name.partition('_')[0]}"


def head(name: str, folder: Path) -> str | None:
    """The newest file's revision; None for a folder without files."""
    files = sorted(folder.glob("*.sql"))
    return revision(name, files[-1]) if files else None
