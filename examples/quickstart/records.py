"""Three days of made-up pumps: `records.py observations | labels` prints one JSON object a line."""

import json
import random
import sys
from datetime import UTC, datetime, timedelta

READINGS = 4000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def main(kind: str) -> None:
    """Print every record of one kind."""
    rng = random.Random(1)  # noqa: S311 - an example, the same for everyone
    for number in range(READINGS):
        at = BEGIN + timedelta(minutes=number)
        site = rng.choice(["north", "south", "harbour"])
        pressure = round(rng.uniform(5, 35), 1)
        warm = None if rng.random() < 0.05 else round(rng.gauss(45, 12), 1)  # noqa: PLR2004
        failed = rng.random() < 0.02 + 0.9 * max(0.0, (pressure - 22) / 13) ** 2
        observation = {"site": site, "pressure": pressure, "temperature": warm, "measured_at": text(at)}
        known = at if kind == "observations" else at + timedelta(hours=1)
        label = {"site": site, "failed": failed, "event_time": text(known)}
        record = observation if kind == "observations" else label
        print(json.dumps({"id": f"reading-{number}", **record, "known_at": text(known)}))


def text(moment: datetime) -> str:
    """RFC 3339."""
    return moment.isoformat().replace("+00:00", "Z")


if __name__ == "__main__":
    main(sys.argv[1])
