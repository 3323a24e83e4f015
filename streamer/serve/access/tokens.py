"""The file of tokens, by their hashes. The commands write it, the daemon reads it.

A token is 256 random bits, so its SHA-256 gives nothing away: salts and slow hashes are for passwords that people
choose. If the file exists, even an empty one, requests need tokens.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from streamer.names import check_name

if TYPE_CHECKING:
    from streamer.settings import Settings

__all__ = [
    "PREFIX",
    "SCOPES",
    "AccessScope",
    "Token",
    "TokenFile",
    "TokenFileError",
    "digest",
    "new_secret",
    "now",
    "token_path",
]

AccessScope = Literal["stream", "read", "write", "admin"]
#: Scopes of tokens. ``admin`` includes the others.
SCOPES: tuple[AccessScope, ...] = ("stream", "read", "write", "admin")
#: Prefix of every token, so that scanners find a leaked one.
PREFIX = "streamer_"
MOST = 64
#: Bytes of the file at most.
LONGEST = 16 * 2**20


class TokenFileError(ValueError):
    """The file can't be used. The message names it and says what to do."""


class Token(BaseModel):
    """``owner``: the owner whose streams it opens and sees; several tokens may share one. ``sha256`` in hexadecimal
    digits. Limits: ``None`` for none; ``max_streams``: streams awake at a time; the rates count what the client
    sends."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(max_length=MOST)]
    owner: Annotated[str, Field(max_length=MOST)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scopes: Annotated[frozenset[AccessScope], Field(min_length=1)]
    max_streams: Annotated[int, Field(ge=0)] | None = None
    requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    bytes_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    created: str = ""

    @field_validator("name", "owner")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        return check_name(value, MOST)

    def may(self, *scopes: AccessScope) -> bool:
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    tokens: list[Token] = []


def new_secret() -> str:
    """A new token, to be shown once."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """A token's hash, as in the file."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def token_path(settings: Settings) -> Path:
    """The path of the tokens of a daemon with these settings."""
    given = settings.token_file
    return Path(given).expanduser() if given else settings.state_directory / "tokens.json"


class TokenFile:
    """Reads the whole file, and writes it whole or not at all. Every method may wait for the disk and may raise
    :class:`TokenFileError`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def exists(self) -> bool:
        return self.path.exists()

    def stamp(self) -> tuple[int, int, int] | None:
        """A value that differs after each change of the file; ``None``: there is no file."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def read(self) -> list[Token]:
        """The tokens; empty if there is no file."""
        try:
            with self.path.open("rb") as file:
                data = file.read(LONGEST + 1)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise TokenFileError(f"can't read the tokens in {self.path}: {error.strerror or error}") from error
        if len(data) > LONGEST:
            raise TokenFileError(f"{self.path} is longer than {LONGEST} bytes: it is no file of tokens")
        try:
            tokens = _Document.model_validate_json(data).tokens
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise TokenFileError(f"{self.path} is no file of tokens ({where}: {first['msg']})") from None
        for what in ("name", "sha256"):
            if len({getattr(token, what) for token in tokens}) < len(tokens):
                raise TokenFileError(f"{self.path}: two tokens have the same {what}: remove one of them")
        return tokens

    def add(self, token: Token) -> None:
        with self._changing() as tokens:
            if any(other.name == token.name for other in tokens):
                text = f"there is a token {token.name!r} already: remove it first, or choose another name"
                raise TokenFileError(f"{text} (--owner {token.owner} lets both have the same streams)")
            tokens.append(token)

    def remove(self, name: str) -> Token:
        with self._changing() as tokens:
            found = next((token for token in tokens if token.name == name), None)
            if found is None:
                known = ", ".join(token.name for token in tokens) or "there is none"
                raise TokenFileError(f"no token is named {name[:MOST]!r}: {known}")
            tokens.remove(found)
        return found

    @contextlib.contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        """The tokens, to be changed and written back; one change at a time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self.path.with_name(self.path.name + ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                tokens = self.read()
                yield tokens
                self._write(tokens)
        except OSError as error:
            raise TokenFileError(f"can't write the tokens to {self.path}: {error.strerror or error}") from error

    def _write(self, tokens: list[Token]) -> None:
        document = {"version": 1, "tokens": [json.loads(token.model_dump_json(exclude_none=True)) for token in tokens]}
        draft = self.path.with_name(self.path.name + ".partial")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        self._hand_over(draft)
        os.replace(draft, self.path)

    def _hand_over(self, draft: Path) -> None:
        """Give a file that root has written to the owner of the directory, the daemon's user."""
        if os.geteuid() == 0:
            owner = self.path.parent.stat()
            os.chown(draft, owner.st_uid, owner.st_gid)
