"""The mean of two checkpoints of one model.

The mean of two weights from one training run, such as its first and its last, often has a lower error than either
(weight averaging: Izmailov et al. 2018, arXiv 1803.05407; Wortsman et al. 2022, arXiv 2109.01903). Choose the share by
the error on development recordings.

    python -m models.training.mix begin.pt runs/english/best.pt --share 0.5 -o mixed.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.training import checkpoint

__all__ = ["mixed"]


@torch.no_grad()
def mixed(first: nn.Module, second: nn.Module, share: float) -> None:
    """Set ``second``, in place, to ``share * second + (1 - share) * first``. Raises ``ValueError`` if their tensors
    differ in names or shapes."""
    theirs, mine = first.state_dict(), second.state_dict()
    if {name: value.shape for name, value in theirs.items()} != {name: value.shape for name, value in mine.items()}:
        raise ValueError("these are not two checkpoints of one model: their tensors differ in names or shapes")
    for name, value in mine.items():
        if value.is_floating_point():
            value.copy_(torch.lerp(theirs[name], value, share))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m models.training.mix", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path, help="the output keeps its info")
    parser.add_argument("--share", type=float, default=0.5, help="of the second one (default %(default)s)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    if not 0 <= options.share <= 1:
        parser.error(f"--share {options.share}: from 0 to 1")
    about: dict[str, Any]
    (first, _), (second, about) = checkpoint.load(options.first), checkpoint.load(options.second)
    try:
        mixed(first, second, options.share)
    except ValueError as error:
        parser.error(str(error))
    checkpoint.save(options.output, second, about)
    print(options.output)


if __name__ == "__main__":
    main()
