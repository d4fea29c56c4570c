"""What the trainer decides and computes: pure, without Kafka, SQL, HTTP or a clock."""
