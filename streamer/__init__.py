"""streamer: stateful streaming inference. A torch-free daemon that carries hidden states across chunks."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("streamer")
except PackageNotFoundError:  # run from a checkout that was not installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
