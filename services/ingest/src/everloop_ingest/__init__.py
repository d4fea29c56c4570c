"""Accepts observations and labels, checks them, writes the log."""
