"""The trainer's use cases."""
