"""The peer: FastAPI and a Booster, as a team would write it in an afternoon.

Features come ready in the request; nothing is recorded.
"""

import sys

import lightgbm
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

booster = lightgbm.Booster(model_file=sys.argv[1])
app = FastAPI()


class Tensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float | None]


class Request(BaseModel):
    id: str | None = None
    inputs: list[Tensor]


@app.post("/v2/models/flights/infer")
def infer(request: Request) -> dict:
    tensor = request.inputs[0]
    rows = np.array(tensor.data, dtype=np.float64).reshape(tensor.shape)  # None becomes NaN
    output = booster.predict(rows, num_threads=1)
    return {
        "model_name": "flights",
        "id": request.id,
        "outputs": [
            {"name": "probability", "datatype": "FP64", "shape": list(output.shape), "data": output.tolist()}
        ],
    }


if __name__ == "__main__":
    import uvicorn

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", access_log=False)
