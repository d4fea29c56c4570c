"""A request's content type and encoding, and its body without the encoding."""

import zlib

from everloop_kernel.http_message import Request

from everloop_serving.domain.tensors import InvalidInput

__all__ = ["BodyTooLarge", "UnsupportedContent", "unpack"]

_TYPES = (b"application/json", b"application/octet-stream")
_GZIP_OR_ZLIB = 47


class UnsupportedContent(Exception):  # noqa: N818  (the caller's mistake)
    """The body is of a kind that is not read."""


class BodyTooLarge(Exception):  # noqa: N818  (the caller's mistake)
    """The body unpacks to more than is read."""


def unpack(request: Request, *, most_bytes: int) -> None:
    """Take the content encoding off the request's body; never more than `most_bytes` are unpacked.

    Raises:
        UnsupportedContent: for a type or an encoding that is not read.
        BodyTooLarge: for a body that unpacks to more.
        InvalidInput: for a body that is not what its encoding says.
    """
    kind = request.headers.get(b"content-type")
    if kind is not None and not kind.lower().startswith(_TYPES):
        raise UnsupportedContent("send the body as application/json")
    encoding = request.headers.get(b"content-encoding", b"identity").lower()
    if encoding in {b"gzip", b"x-gzip", b"deflate"}:
        request.body = _unpacked(request.body, most_bytes)
    elif encoding != b"identity":
        raise UnsupportedContent("send the body as gzip, as deflate, or without a content encoding")


def _unpacked(body: bytes, most_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        found = unpacker.decompress(body, most_bytes + 1)
    except zlib.error as error:
        raise InvalidInput(f"the body is not what its content encoding says: {error}") from None
    if len(found) > most_bytes:
        raise BodyTooLarge(f"the body unpacks to more than {most_bytes} bytes")
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidInput("the compressed body ends too early, or goes on behind its end")
    return found
