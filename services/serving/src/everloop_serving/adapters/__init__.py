"""The outside world behind the application's ports: LightGBM, subprocesses, files, Kafka."""
