"""Kafka, HTTP and the loops: translate, call, nothing else."""
