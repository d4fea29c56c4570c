"""The contracts: every event, every topic, the pipeline file."""
