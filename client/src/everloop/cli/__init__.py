"""The `everloop` command: one module a group of commands."""

from everloop.cli.app import main

__all__ = ["main"]
