"""Denormal numbers as zero, for the calling thread.

A silent input decays a recurrent state into denormals, and on many CPUs each one costs a hundred cycles. ONNX
Runtime's own switch reaches its pool threads and the first thread that ever made a session, so it misses the engine's
lanes (which call ``run`` themselves) and would leak into the caller of ``Model.load``. Hence the floating-point
environment of C99, by hand.
"""

from __future__ import annotations

import ctypes
import platform
import sys

__all__ = ["flush_denormals"]

# (offset of the control word in glibc's fenv_t, bits to set)
_LAYOUTS = {
    "x86_64": (28, 0x8040),  # MXCSR: flush to zero, denormals are zero
    "aarch64": (0, 1 << 24),  # FPCR: FZ
}


def flush_denormals() -> bool:
    """Flush denormals to zero in this thread. False where that is not supported (another CPU or C library): slower, but
    never wrong."""
    layout = _LAYOUTS.get(platform.machine())
    if layout is None or not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    offset, bits = layout
    libm = ctypes.CDLL("libm.so.6")
    environment = ctypes.create_string_buffer(64)
    if libm.fegetenv(environment) != 0:
        return False
    word = ctypes.c_uint32.from_buffer(environment, offset)
    word.value |= bits
    return bool(libm.fesetenv(environment) == 0)
