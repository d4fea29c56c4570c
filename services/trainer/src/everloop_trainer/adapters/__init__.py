"""LightGBM, Parquet, Postgres, Kafka and processes, behind what the use cases ask for."""
