"""The peer: a BentoML service with a LightGBM model, one worker."""

import os
import sys
from pathlib import Path

import bentoml
import lightgbm
import numpy as np


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Flights:
    def __init__(self) -> None:
        self.booster = lightgbm.Booster(model_file=os.environ["FLIGHTS_MODEL"])

    @bentoml.api
    def infer(self, rows: list[list[float | None]]) -> list[float]:
        matrix = np.array(rows, dtype=np.float64)  # None becomes NaN
        return self.booster.predict(matrix, num_threads=1).tolist()


if __name__ == "__main__":
    os.environ["FLIGHTS_MODEL"] = sys.argv[1]
    here = str(Path(__file__).parent)
    program = str(Path(sys.executable).with_name("bentoml"))
    os.execv(
        program,
        [
            program,
            "serve",
            "bentoml_lightgbm:Flights",
            "--working-dir",
            here,
            "--host",
            "127.0.0.1",
            "--port",
            sys.argv[2],
        ],
    )
