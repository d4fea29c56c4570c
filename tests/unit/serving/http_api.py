"""The HTTP routes around two versions of a model, without a network."""

import asyncio
import json

from everloop_kernel.auth import Tokens
from everloop_kernel.http_message import Request, Response
from everloop_kernel.stream_writer import Output
from everloop_serving.adapters.lightgbm_engine import Booster, Explainer
from everloop_serving.application.loaded_model import Blueprint, LoadedModel
from everloop_serving.application.models import Arms, Models
from everloop_serving.application.predict import Predictions
from everloop_serving.application.prediction_events import EventWriter
from everloop_serving.domain.artifact import read_artifact
from everloop_serving.entrypoints.access import Access
from everloop_serving.entrypoints.errors import Errors
from everloop_serving.entrypoints.http_routes import Routes
from everloop_serving.entrypoints.infer_http import Inference
from everloop_serving.metrics import HotMetrics
from integration.serving.deployed_model import artifact, reference

NAME = "flights"
INFER = f"/v2/models/{NAME}/infer"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class State:
    def __init__(self, state) -> None:
        self.reader = state

    def age_seconds(self) -> float:
        return 1.5


class Part:
    name = "part"
    reason: str | None = None

    def not_ready(self) -> str | None:
        return self.reason


def loaded(data: bytes, version: int) -> LoadedModel:
    blueprint = Blueprint.of(reference(data, version), read_artifact(data))
    engine = Booster(blueprint.artifact.model_text)
    return LoadedModel(
        blueprint, engine, State(blueprint.compiled.new_state(1)), most_rows=500, explainer=Explainer
    )


class Api:
    """The routes around two versions of a model."""

    def __init__(self, tokens: Tokens | None = None) -> None:
        self.events: list[Output] = []
        self.metrics = HotMetrics()
        self.part = Part()
        self.data = artifact(NAME)
        one, two = loaded(self.data, 1), loaded(artifact(NAME, seed=2), 2)
        self.models = Models()
        self.models.replace(NAME, Arms(1, one, by_version={1: one, 2: two}))
        self.models.pending["soon"] = "it is loading"
        predictions = self.predictions = Predictions(EventWriter("x"), self.events.append, self.metrics)
        errors = Errors(self.metrics)
        inference = Inference(self.models, predictions, errors)
        self.routes = Routes(
            self.models, inference, Access(tokens or Tokens(None)), errors,
            components=[self.part], metrics=self.metrics, most_body_bytes=100_000,
        )  # fmt: skip

    def ask(self, method: str, path: str, body: object = b"", **headers: str) -> Response:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
        return asyncio.run(self._answer(Request(method.encode(), path.encode(), named, data)))

    async def _answer(self, request: Request) -> Response:
        answer = self.routes(request)
        return answer if isinstance(answer, Response) else await answer

    def post(self, path: str, body: object, **headers: str) -> Response:
        return self.ask("POST", path, body, **headers)
