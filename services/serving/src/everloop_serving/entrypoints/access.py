"""Who may ask for predictions."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from everloop_kernel.auth import Tokens, is_loopback

__all__ = ["Access", "Refused"]


class Refused(Exception):  # noqa: N818  (the caller's mistake)
    """The caller may not do this. `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = "unauthenticated" if status == 401 else "forbidden"  # noqa: PLR2004  (HTTP's number)
        self.headers = [(b"www-authenticate", b'Bearer realm="everloop"')] if status == 401 else []  # noqa: PLR2004


class Access:
    """The platform's tokens, asked for the role `reader`."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def check(self, headers: Mapping[bytes, bytes], pipeline: str) -> None:
        """Raise Refused unless the caller may read `pipeline` (empty: anything)."""
        if not self._tokens.required:
            origin = headers.get(b"origin")
            if origin is not None and not _is_local(origin):
                raise Refused(403, "a page of another origin may not call this service without a token")
            return
        authorization = headers.get(b"authorization", b"").decode("latin-1")
        self.check_token(authorization, pipeline)

    def sees(self, headers: Mapping[bytes, bytes], pipeline: str) -> bool:
        """Whether the caller may read `pipeline`: lists leave out what they may not."""
        try:
            self.check(headers, pipeline)
        except Refused:
            return False
        return True

    def check_token(self, authorization: str | None, pipeline: str) -> None:
        """The same for an `authorization` value alone, as gRPC metadata carries it."""
        caller = self._tokens.authenticate(authorization)
        if caller is None:
            raise Refused(401, "send `Authorization: Bearer <token>`; `everloop token create` makes one")
        if not caller.has("reader") or (pipeline and not caller.sees(pipeline)):
            raise Refused(403, f"{caller.name} may not read {pipeline or 'this'}")


def _is_local(origin: bytes) -> bool:
    try:
        return is_loopback(urlsplit(origin.decode("latin-1")).hostname or "")
    except ValueError:
        return False
