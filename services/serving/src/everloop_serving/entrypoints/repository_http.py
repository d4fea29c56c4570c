"""Triton's model repository extension over HTTP."""

import msgspec
from everloop_kernel.http_message import Request, Response, json_response

from everloop_serving.application.repository import Repository
from everloop_serving.domain.tensors import InvalidInput
from everloop_serving.entrypoints.access import Access

__all__ = ["RepositoryIndexRequest", "RepositoryRoutes"]


class RepositoryIndexRequest(msgspec.Struct, frozen=True):
    """What the index is asked for; other members are ignored."""

    ready: bool = False
    """Only versions that answer."""


class RepositoryRoutes:
    """Index, load and unload. What a client says with a load (a configuration, files) is not looked at."""

    def __init__(self, repository: Repository, access: Access) -> None:
        self._repository = repository
        self._access = access

    def index(self, request: Request, _model: str, _version: str | None) -> Response:
        """`POST /v2/repository/index`; an empty body asks for all."""
        try:
            asked = msgspec.json.decode(request.body or b"{}", type=RepositoryIndexRequest)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidInput(f"the body is no index request: {error}") from None
        found = self._repository.index(
            ready=asked.ready, sees=lambda name: self._access.sees(request.headers, name)
        )
        return json_response([state._asdict() for state in found])

    def load(self, _request: Request, model: str, _version: str | None) -> Response:
        """`POST /v2/repository/models/{m}/load`."""
        self._repository.load(model)
        return json_response({})

    def unload(self, _request: Request, model: str, _version: str | None) -> Response:
        """`POST /v2/repository/models/{m}/unload`."""
        self._repository.unload(model)
        raise AssertionError("unloading is never granted")
