"""Causal streaming layers with explicit state. The contract is in :mod:`models.layers.base`."""

from models.layers.attention import WindowAttention
from models.layers.base import Chain, State, Streaming, inner, outer
from models.layers.bidirectional import Bidirectional, LookAhead
from models.layers.conv import CausalConv, ChannelNorm, GatedBlock, GatedStack, StridedConv, Subsample
from models.layers.mel import LogMel
from models.layers.mingru import MinGRU
from models.layers.norm import RunningNorm
from models.layers.recurrent import Recurrent, RecurrentStack
from models.layers.residual import FeedForward, Residual
from models.layers.transformer import BlockAttention, TransformerStack

__all__ = [
    "Bidirectional",
    "BlockAttention",
    "CausalConv",
    "Chain",
    "ChannelNorm",
    "FeedForward",
    "GatedBlock",
    "GatedStack",
    "LogMel",
    "LookAhead",
    "MinGRU",
    "Recurrent",
    "RecurrentStack",
    "Residual",
    "RunningNorm",
    "State",
    "Streaming",
    "StridedConv",
    "Subsample",
    "TransformerStack",
    "WindowAttention",
    "inner",
    "outer",
]
