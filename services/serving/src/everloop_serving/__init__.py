"""Answers predictions over HTTP and gRPC."""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
"""gRPC reads it when it is imported; our forks only execute other programs, and need none of its handlers."""
