"""Small datasets for the trainer's tests."""

import numpy as np
from everloop_trainer.domain.dataset import Column, Dataset, Identity, Labels, Vectors, assemble

IDENTITY = Identity("flights", 1, "0" * 64)
HOUR = 3_600_000_000
START = 1_356_998_400_000_000  # 2013-01-01


def vectors(n, *, seed=0, partitions=3):
    """Vectors of one number, one boolean and one category feature; partition i holds every third row."""
    random = np.random.default_rng(seed)
    rows = np.arange(n)
    carriers = [None if i % 17 == 0 else "ABCD"[i % 4] for i in range(n)]
    return Vectors(
        [f"r{i}" for i in rows],
        rows % partitions,
        rows // partitions * 2,
        START + rows * HOUR // 10,
        START + rows * HOUR // 10,
        (
            Column("wind", "number", np.where(rows % 13 == 0, np.nan, random.normal(size=n))),
            Column("wet", "boolean", (random.random(n) > 0.7).astype(float)),
            Column("carrier", "category", carriers),
        ),
    )


def labels(n, *, seed=1, partitions=3, delay=HOUR):
    """One label a vector, known an hour after its observation; it depends on the number and on chance."""
    random = np.random.default_rng(seed)
    wind = np.nan_to_num(vectors(n).columns[0].values)
    rows = np.arange(n)
    known = START + rows * HOUR // 10 + delay
    value = (wind + random.normal(size=n) > 0).astype(float)
    return Labels([f"r{i}" for i in rows], rows % partitions, rows // partitions * 2 + 1, known, known, value)


def dataset(n, **changes):
    """All of them, joined."""
    cut = {0: n * 2, 1: n * 2, 2: n * 2}
    made = assemble(IDENTITY, vectors(n), labels(n), cut, 0)
    return Dataset(**{**{name: getattr(made, name) for name in Dataset.__slots__}, **changes})
