"""The registry's Ed25519 key: made once, the private half readable by its owner only."""

import base64
import hashlib
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from everloop_kernel.errors import ConfigurationError
from everloop_schemas.events import DeploymentChanged
from everloop_schemas.signing import signed_bytes

__all__ = ["SigningKey"]

_OWNER_ONLY = 0o600
_KEY_ID_DIGITS = 16


class SigningKey:
    """Signs deployments. Serving trusts the public halves that lie in `<data_dir>/keys/`."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public_bytes = private.public_key().public_bytes_raw()
        """The raw public key, 32 bytes."""
        self.key_id = hashlib.sha256(self.public_bytes).hexdigest()[:_KEY_ID_DIGITS]

    @classmethod
    def open(cls, data_dir: Path) -> "SigningKey":
        """The key of this installation, made at first use, its public half beside it for verifiers.

        Raises:
            ConfigurationError: when the key can be neither read nor made.
        """
        path = data_dir / "registry" / "signing-key.pem"
        try:
            key = cls(_read(path) if path.exists() else _make(path))
            _publish(key, data_dir / "keys" / f"{key.key_id}.pub")
        except (OSError, ValueError, TypeError) as error:
            raise ConfigurationError(
                f"the signing key {path} cannot be used: {error}",
                "Make the folder writable, or restore the key from a backup",
            ) from error
        return key

    def sign(self, event: DeploymentChanged) -> DeploymentChanged:
        """The event with this key's id and its signature over everything else."""
        named = event.model_copy(update={"key_id": self.key_id, "signature": ""})
        signature = base64.b64encode(self._private.sign(signed_bytes(named))).decode()
        return named.model_copy(update={"signature": signature})


def _read(path: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("it is not an Ed25519 key")
    return key


def _make(path: Path) -> Ed25519PrivateKey:
    """Write the key under another name, then link it: a second process that races reads the winner's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_suffix(f".{os.getpid()}.new")
    _write(draft, pem, _OWNER_ONLY)
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
    return _read(path)


def _publish(key: SigningKey, path: Path) -> None:
    """Put the public half where verifiers look, whole or not at all."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.new")
    _write(draft, key.public_bytes.hex().encode(), 0o644)
    draft.replace(path)


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
