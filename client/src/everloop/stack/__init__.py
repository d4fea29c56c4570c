"""The whole platform on one machine: Kafka, PostgreSQL and the six services, supervised.

```python
with Stack(Path(".everloop")) as stack:
    print(stack.addresses.serving)
```
"""

from everloop.addresses import Addresses
from everloop.stack.settings import SERVICES, Ports, StackSettings
from everloop.stack.stack import Stack

__all__ = ["SERVICES", "Addresses", "Ports", "Stack", "StackSettings"]
