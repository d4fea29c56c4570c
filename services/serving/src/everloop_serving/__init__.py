"""Answers predictions over HTTP and gRPC."""
