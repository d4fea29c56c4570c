"""How requests and events come in: HTTP, gRPC, Kafka."""
