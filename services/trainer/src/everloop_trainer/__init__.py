"""Cuts datasets and trains models, reproducibly."""
