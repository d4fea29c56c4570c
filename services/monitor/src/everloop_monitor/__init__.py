"""Joins predictions with labels and says when a model drifts."""
