"""What follows from a log partition: vectors and state, without Kafka."""
