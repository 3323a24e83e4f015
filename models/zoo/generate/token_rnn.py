"""A recurrent generator: a GRU over tokens, with the chosen token fed back inside the graph (Graves 2013)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers.base import State, Streaming, inner, outer
from models.layers.config import Config
from models.layers.sampling import ControlColumns, Noise, choose, log_prob


@dataclass(frozen=True)
class TokenRNNConfig(Config):
    """``vocabulary``: number of tokens, with token 0, which precedes the first one."""

    vocabulary: int
    hidden: int = 160


class TokenRNN(Streaming):
    """Controls [B, T, 4] int32 -> ``tokens`` [B, T, 1] int64 and ``log_prob`` [B, T, 1]; each step's input is the last
    token.

    State: the last token, the noise, the GRU's hidden vector. For training, :meth:`teach` runs the same weights over
    given tokens in one call.
    """

    receptive_field = None

    def __init__(self, config: TokenRNNConfig) -> None:
        super().__init__()
        self.config = config
        self.rnn = nn.GRU(config.vocabulary, config.hidden, batch_first=True)
        self.head = nn.Linear(config.hidden, config.vocabulary)
        self.noise = Noise()
        self.columns = ControlColumns(config.vocabulary)

    def initial_state(self, batch: int) -> State:
        own = {"h": torch.zeros(batch, self.config.hidden), "token": torch.zeros(batch, 1, dtype=torch.int64)}
        return own | outer(self.noise.initial_state(batch), "noise")

    def teach(self, tokens: Tensor) -> Tensor:
        """Tokens [B, T] -> logits [B, T, V] of each, given those before it."""
        before = F.one_hot(F.pad(tokens, (1, -1)), self.config.vocabulary).float()
        hidden: Tensor = self.rnn(before)[0]
        return self.head(hidden)

    def forward(self, x: Tensor, state: State) -> tuple[dict[str, Tensor], State]:
        settings = self.columns.read(x)
        draws, noise = self.noise(settings.seed, inner(state, "noise"))
        token, h = state["token"], state["h"]
        tokens, logits = [], []
        # matrices are transposed and biases added once, so that a step is hardly more than two products
        enter = self.rnn.weight_ih_l0.T + self.rnn.bias_ih_l0  # [V, 3H]: the product with a one-hot is a row
        again = self.rnn.weight_hh_l0.T.contiguous()
        for t in range(x.shape[1]):
            h = self._cell(F.embedding(token[:, 0], enter), h @ again + self.rnn.bias_hh_l0, h)
            logit = self.head(h)
            top = None if settings.top is None else settings.top[:, t]
            token = choose(logit, draws[:, t], settings.scale[:, t], top, settings.force[:, t])
            tokens.append(token)
            logits.append(logit)
        chosen = torch.stack(tokens, dim=1)  # [B, T, 1]
        outputs = {"tokens": chosen, "log_prob": log_prob(torch.stack(logits, dim=1), chosen[:, :, 0])[:, :, None]}
        return outputs, {"h": h, "token": token, **outer(noise, "noise")}

    def _cell(self, x: Tensor, again: Tensor, h: Tensor) -> Tensor:
        """PyTorch's GRU, gates reset, update, new; ``x`` and ``again`` [B, 3H]: products of input and ``h``."""
        size = self.config.hidden
        (gates, content), (kept, remembered) = x.split([2 * size, size], 1), again.split([2 * size, size], 1)
        reset, update = (gates + kept).sigmoid().split(size, 1)
        new = (content + reset * remembered).tanh()
        return new + update * (h - new)
