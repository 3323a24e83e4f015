"""``python -m export.command FILE.py:FUNCTION``: ``streamer export`` runs this with a Python that has PyTorch."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import pickle
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from export.build import RefusedError
from export.forward import ExportError
from export.module import export
from streamer.commands.check import show

__all__ = ["load_weights", "made", "main"]

#: Keys under which trainers save a state_dict.
INSIDE = ("state_dict", "model_state_dict", "model", "weights")
#: Module name under which the user's file is imported.
OURS = "exported_source"
#: Prefixes that wrappers add to every name.
PREFIXES = ("module.", "_orig_mod.", "model.")


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0 if the file was written, 1 if it was refused, 2 for a bad function or option."""
    given = _parser().parse_args(arguments)
    try:
        wanted = made(given.source)
        if given.weights is not None:
            load_weights(wanted["module"], given.weights)
        options = {
            "output": given.output or f"{_stem(given.source)}.onnx",
            "labels": given.labels.split(",") if given.labels else None,
            "sample_rate": given.sample_rate,
            "name": given.name,
            "licence": given.licence,
        }
        wanted |= {key: value for key, value in options.items() if value is not None}
        if given.step_seconds:
            wanted["step_seconds"] = given.step_seconds
        if not given.whole:
            wanted["whole"] = False
        bounds = {"max_batch": given.max_batch, "seed": given.seed, "endurance": given.endurance}
        export(**{**bounds, **wanted}, say=lambda line: print(line, flush=True))
    except RefusedError as error:
        show(error.verdict)
        print("refused: nothing was written", file=sys.stderr)
        return 1
    except ExportError as error:
        print(f"export: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"export: {error.filename or given.output}: {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


def made(source: str) -> dict[str, Any]:
    """Call the function that ``source`` names; returns its result as arguments of :func:`export.export`. Raises
    :class:`ExportError`."""
    where, colon, function = source.rpartition(":")
    if not colon or not function.isidentifier():
        raise ExportError(f"{source!r} does not name a function: FILE.py:FUNCTION, as in my_module.py:make_model")
    module = _imported(where)
    make = getattr(module, function, None)
    if not callable(make):
        raise ExportError(f"{where} has no function {function}; there are: {', '.join(_functions(module)) or 'none'}")
    try:
        result = make()
    except Exception as error:  # raised by the user's code, so the traceback helps
        traceback.print_exc(limit=-3)
        raise ExportError(f"{source} failed: {type(error).__name__}: {error}") from error
    if isinstance(result, nn.Module):
        result = (result,)
    if isinstance(result, tuple | list):
        result = dict(zip(("module", "example", "states"), result, strict=False))
    if not isinstance(result, Mapping) or not isinstance(result.get("module"), nn.Module):
        raise ExportError(f"{source} returned {type(result).__name__}: return (module, example, states)")
    if "example" not in result:
        raise ExportError(
            f"{source} returned the module alone. Return also an example of one call's input, and the state that a "
            "stream starts with: return model, torch.zeros(1, 1, 8), (h, c)"
        )
    return dict(result)


def _functions(module: ModuleType) -> list[str]:
    """The module's own functions, without those that it imports."""
    return sorted(
        name
        for name, value in vars(module).items()
        if callable(value)
        and not isinstance(value, type)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
    )


def _imported(where: str) -> ModuleType:
    try:
        if not where.endswith(".py"):
            sys.path.insert(0, "")
            return importlib.import_module(where)
        path = Path(where).resolve()
        if not path.is_file():
            raise ExportError(f"no file {where}")
        sys.path.insert(0, str(path.parent))  # as for a script: modules beside it can be imported
        spec = importlib.util.spec_from_file_location(OURS, path)  # the file may have the name of a needed package
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[OURS] = module
        spec.loader.exec_module(module)
    except ExportError:
        raise
    except Exception as error:  # raised by the user's code, so the traceback helps
        traceback.print_exc(limit=-3)
        raise ExportError(f"{where} can't be imported: {type(error).__name__}: {error}") from error
    return module


def load_weights(module: nn.Module, path: Path) -> None:
    """Load weights from ``path``: a state_dict, or a checkpoint with one in it, as ``torch.save`` writes them, or a
    ``.safetensors`` file. Raises :class:`ExportError` if they do not fit the module."""
    found = _safetensors(path) if path.suffix == ".safetensors" else _saved(path)
    for key in INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ExportError(f"{path} holds no state_dict: save one with torch.save(model.state_dict(), {path.name!r})")
    weights, wanted = dict(found), set(module.state_dict())
    for prefix in PREFIXES:
        if not wanted & set(weights) and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    own = module.state_dict()
    stored = {own[name].data_ptr(): name for name in weights if name in own}
    for name in wanted - set(weights):  # safetensors stores tied weights once
        if (same := stored.get(own[name].data_ptr())) is not None:
            weights[name] = weights[same]
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        problems = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise ExportError(f"{path} is of another module: {problems}") from error


def _saved(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ExportError(f"no file {path}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(
            f"{path} holds more than weights ({lines[0][:120]}): save model.state_dict(), not the model"
        ) from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ExportError(f"{error.name} is missing: pip install 'streamer[export]'") from error
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ExportError(f"no file {path}") from error
    except SafetensorError as error:
        raise ExportError(f"{path} is not a safetensors file: {str(error)[:120]}") from error


def _stem(source: str) -> str:
    where = source.rpartition(":")[0]
    return Path(where).stem if where.endswith(".py") else where.rpartition(".")[2]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="streamer export", description=__doc__)
    parser.add_argument("source", metavar="FILE.py:FUNCTION")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--labels")
    parser.add_argument("--sample-rate", type=int)
    parser.add_argument("--step-seconds", type=float, default=0.0)
    parser.add_argument("--whole", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--name")
    parser.add_argument("--licence")
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--endurance", type=int, default=400)
    return parser


if __name__ == "__main__":
    sys.exit(main())
