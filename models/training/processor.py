"""Features of the processor."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["fast_bfloat16"]


def fast_bfloat16() -> bool:
    """Whether the processor has instructions that multiply bfloat16; where it is emulated, it is far slower than
    float32."""
    try:
        return bool(re.search(r"\b(amx_bf16|avx512_bf16)\b", Path("/proc/cpuinfo").read_text()))
    except OSError:
        return False
