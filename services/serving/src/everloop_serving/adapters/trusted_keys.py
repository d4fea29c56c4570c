"""The Ed25519 public keys whose deployments are believed."""

import base64
import binascii
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from everloop_schemas.signing import SIGNATURE_FIELD, signed_bytes

from everloop_serving.application.ports import Untrusted

__all__ = ["TrustedKeys"]

_KEY_ID_DIGITS = 16


class TrustedKeys:
    """Keys in a folder, one `<key id>.pub` each: the raw key in hexadecimal."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Ed25519PublicKey] = {}

    def verify(self, document: Mapping[str, Any]) -> None:
        """Check the signature of a deployment as it was received; raises Untrusted."""
        key_id, signature = document.get("key_id"), document.get(SIGNATURE_FIELD)
        if not isinstance(key_id, str) or not isinstance(signature, str):
            raise Untrusted("the deployment is not signed")
        key = self._known.get(key_id) or self._read(key_id)
        try:
            key.verify(base64.b64decode(signature, validate=True), signed_bytes(document))
        except (InvalidSignature, binascii.Error, ValueError) as error:
            raise Untrusted(f"the signature by {key_id} does not fit the deployment") from error
        self._known[key_id] = key

    def _read(self, key_id: str) -> Ed25519PublicKey:
        """Read at its first use, so that a new key needs no restart."""
        if len(key_id) != _KEY_ID_DIGITS or not key_id.isalnum():
            raise Untrusted(f"{key_id[:40]!r} is no key id")
        path = self._folder / f"{key_id}.pub"
        try:
            raw = bytes.fromhex(path.read_text(encoding="ascii"))
            if hashlib.sha256(raw).hexdigest()[:_KEY_ID_DIGITS] != key_id:
                raise Untrusted(f"{path} holds another key than its name says")
            return Ed25519PublicKey.from_public_bytes(raw)
        except FileNotFoundError as error:
            raise Untrusted(f"the key {key_id} is not trusted: {path} does not exist") from error
        except (OSError, ValueError) as error:
            raise Untrusted(f"{path} holds no Ed25519 key: {error}") from error
