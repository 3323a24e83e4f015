"""Signatures of model files: Ed25519 in minisign's formats, so that both programs read each other's signatures.

``NAME.onnx.minisig`` beside a file holds two signatures: one of the file's BLAKE2b-512, and one of the first signature
with the trusted comment appended. Keys are those of ``minisign -G -W``, without a password.
https://jedisct1.github.io/minisign/
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["SIGNATURE", "PublicKey", "SignatureError", "make_key", "read_public_key", "sign", "signature_of", "verify"]

#: Algorithms: a signature of the file's hash (made here), and of the file itself (older versions of minisign).
HASHED, PLAIN = b"ED", b"Ed"
TRUSTED = "trusted comment: "
#: Suffix that a signature's name appends to that of its file.
SIGNATURE = ".minisig"
#: Bytes of a key or a signature file that are read.
LONGEST = 4096


class SignatureError(ValueError):
    """A key or a signature is missing or invalid. The message says what to do."""


class PublicKey(NamedTuple):
    """``id``: eight bytes by which a signature names its key; ``raw``: 32 bytes."""

    id: bytes
    raw: bytes

    def __str__(self) -> str:
        return base64.b64encode(PLAIN + self.id + self.raw).decode()


def read_public_key(given: str) -> PublicKey:
    """minisign's base64, or the path of a file with it. Raises :class:`SignatureError`."""
    path = Path(given).expanduser()
    try:
        text = path.read_text("utf-8")[:LONGEST] if path.suffix == ".pub" or path.is_file() else given
    except (OSError, ValueError) as error:
        raise SignatureError(f"can't read the public key {given}: {error}") from error
    data = _decoded(_lines(text)[-1:], "public key", 42)
    if data[:2] != PLAIN:
        raise SignatureError(f"{given[:100]!r} is not a public key of minisign")
    return PublicKey(data[2:10], data[10:])


def make_key(secret: Path, public: Path) -> PublicKey:
    """Write a new pair of keys; the secret key's file is readable by its owner alone. Raises :class:`SignatureError` if
    a file exists already."""
    _need_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private, id = Ed25519PrivateKey.generate(), secrets.token_bytes(8)
    key = PublicKey(id, private.public_key().public_bytes_raw())
    pair = private.private_bytes_raw() + key.raw
    check = hashlib.blake2b(PLAIN + id + pair, digest_size=32).digest()
    data = PLAIN + b"\0\0" + b"B2" + bytes(48) + id + pair + check
    for path, mode, what, body in (
        (secret, 0o600, "secret", base64.b64encode(data).decode()),
        (public, 0o644, "public", str(key)),
    ):
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except OSError as error:
            raise SignatureError(f"can't write the {what} key {path}: {error.strerror}") from error
        with os.fdopen(file, "w") as out:
            out.write(f"untrusted comment: minisign {what} key {id[::-1].hex().upper()}\n{body}\n")
    return key


def sign(path: Path, secret: Path, comment: str) -> Path:
    """Write the signature of the file at ``path``, with the trusted ``comment``, beside it; returns the signature's
    path. Raises :class:`SignatureError` and :class:`OSError`."""
    _need_library()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if "\n" in comment:
        raise SignatureError("a comment is one line")
    data = _decoded(_lines(secret.read_text("utf-8")[:LONGEST])[-1:], "secret key", 158)
    if data[2:4] != b"\0\0":
        raise SignatureError(f"{secret} has a password: sign with minisign, or make a key without one")
    id, pair = data[54:62], data[62:126]
    if data[126:] != hashlib.blake2b(PLAIN + id + pair, digest_size=32).digest():
        raise SignatureError(f"{secret} is damaged (checksum)")
    private = Ed25519PrivateKey.from_private_bytes(pair[:32])
    first = private.sign(hashlib.blake2b(path.read_bytes()).digest())
    second = private.sign(first + comment.encode())
    beside = _beside(path)
    lines = (
        f"untrusted comment: signature of {path.name}",
        base64.b64encode(HASHED + id + first).decode(),
        TRUSTED + comment,
        base64.b64encode(second).decode(),
    )
    beside.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return beside


def signature_of(path: Path) -> str:
    """The signature file beside a file. Raises :class:`SignatureError` if there is none."""
    try:
        with _beside(path).open("rb") as file:
            return file.read(LONGEST).decode("utf-8", "replace")
    except OSError as error:
        raise SignatureError(
            f"it is not signed, {_beside(path).name} is not there, and the setting model_keys asks for it "
            f"({error.strerror}): streamer sign makes one"
        ) from error


def verify(data: bytes, signature: str, keys: Sequence[PublicKey]) -> str:
    """The trusted comment of a ``signature`` of ``data`` by one of ``keys``. Raises :class:`SignatureError`."""
    _need_library()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    lines = _lines(signature)
    if len(lines) != 4 or not lines[2].startswith(TRUSTED):
        raise SignatureError("its signature is not in minisign's format: sign it again")
    body, comment = _decoded(lines[1:2], "signature", 74), lines[2].removeprefix(TRUSTED)
    key = next((key for key in keys if key.id == body[2:10]), None)
    if key is None:
        raise SignatureError(
            f"it is signed with the key {body[9:1:-1].hex().upper()}, which is not in the setting model_keys"
        )
    signed = hashlib.blake2b(data).digest() if body[:2] == HASHED else data if body[:2] == PLAIN else None
    public = Ed25519PublicKey.from_public_bytes(key.raw)
    try:
        if signed is None:
            raise InvalidSignature
        public.verify(body[10:], signed)
        public.verify(_decoded(lines[3:4], "signature", 64), body[10:] + comment.encode())
    except InvalidSignature as error:
        raise SignatureError("its signature does not fit: the file or the signature was changed since") from error
    return comment


def _beside(path: Path) -> Path:
    return path.with_name(path.name + SIGNATURE)


def _lines(text: str) -> list[str]:
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _decoded(lines: Sequence[str], what: str, length: int) -> bytes:
    try:
        data = base64.b64decode("".join(lines), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if len(data) != length:
        raise SignatureError(f"this is not a {what} of minisign")
    return data


def _need_library() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise SignatureError("signatures need a library: pip install 'streamer[sign]'") from error
