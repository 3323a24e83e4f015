"""Causal streaming layers with explicit state. The contract is in :mod:`models.layers.base`."""

from models.layers.base import Chain, State, Streaming, inner, outer
from models.layers.conv import CausalConv, ChannelNorm, GatedBlock, GatedStack, StridedConv, Subsample
from models.layers.mel import LogMel
from models.layers.norm import RunningNorm
from models.layers.recurrent import Recurrent, RecurrentStack

__all__ = [
    "CausalConv",
    "Chain",
    "ChannelNorm",
    "GatedBlock",
    "GatedStack",
    "LogMel",
    "Recurrent",
    "RecurrentStack",
    "RunningNorm",
    "State",
    "Streaming",
    "StridedConv",
    "Subsample",
    "inner",
    "outer",
]
