"""The Open Inference Protocol v2 over gRPC; `make proto` generates the modules from inference.proto."""
