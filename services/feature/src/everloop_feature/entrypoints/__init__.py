"""Decisions of the registry, as they arrive."""
