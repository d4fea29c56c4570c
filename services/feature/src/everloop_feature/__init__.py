"""Computes feature vectors from the log."""
