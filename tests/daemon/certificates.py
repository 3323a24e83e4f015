"""Certificates for one test: an authority, and who it vouches for. Made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

__all__ = ["Authority"]


class Authority:
    """``folder`` gets ``ca.pem``, and ``NAME.pem`` with ``NAME.key`` for each :meth:`issue`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        folder.mkdir(exist_ok=True, parents=True)
        self.folder, self.pem, self._key = folder, folder / f"{name}.pem", folder / f"{name}.key"
        _openssl(
            "req", "-x509", *KEY, "-keyout", self._key, "-out", self.pem, "-subj", f"/CN=test {name}", "-days", "2"
        )

    def issue(self, name: str) -> tuple[Path, Path]:
        """Certificate and key, for 127.0.0.1 and localhost; a new one each time."""
        pem, key, request = (self.folder / f"{name}.{suffix}" for suffix in ("pem", "key", "csr"))
        extra = self.folder / f"{name}.ext"
        extra.write_text("subjectAltName = IP:127.0.0.1, DNS:localhost\n")
        _openssl("req", *KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signing = ("-CA", self.pem, "-CAkey", self._key, "-CAcreateserial", "-days", "2", "-extfile", extra)
        _openssl("x509", "-req", "-in", request, "-out", pem, *signing)
        return pem, key


KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
