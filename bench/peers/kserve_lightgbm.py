"""The peer: KServe's model server with a LightGBM model, as its documentation writes a custom model."""

import sys

import lightgbm
import numpy as np
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Flights(Model):
    def __init__(self, path: str) -> None:
        super().__init__("flights")
        self.booster = lightgbm.Booster(model_file=path)
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None, response_headers=None) -> InferResponse:  # noqa: ARG002  (its names)
        rows = payload.inputs[0].as_numpy().astype(np.float64)
        output = self.booster.predict(rows, num_threads=1)
        answer = InferOutput("probability", list(output.shape), "FP64", output.tolist())
        return InferResponse(response_id=payload.id, model_name=self.name, infer_outputs=[answer])


if __name__ == "__main__":
    server = ModelServer(http_port=int(sys.argv[2]), workers=1, enable_grpc=False, access_log_format=None)
    server.start([Flights(sys.argv[1])])
