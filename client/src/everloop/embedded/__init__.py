"""A real Kafka and a real PostgreSQL, without Docker and without root.

```python
with Kafka(Path(".everloop/kafka")) as kafka, Postgres(Path(".everloop/postgres")) as postgres:
    print(kafka.bootstrap_servers, postgres.dsn)
```
"""

from everloop.embedded.kafka import Kafka
from everloop.embedded.postgres import Postgres

__all__ = ["Kafka", "Postgres"]
