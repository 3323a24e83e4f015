"""Two pictures: gradients through time, and the training of deep stacks with and without residual connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Chain, MinGRU, Recurrent, Residual, Streaming

STEPS, WIDTH = 200, 64
CLIP = 1.0


def gradients(layer: Streaming, steps: int = STEPS, seed: int = 0) -> tuple[NDArray[np.float64], float]:
    """Norms of the gradient of a loss at the last step with respect to the state 1, 2, ... steps earlier; and the norm
    of the weights' gradient, to which clipping applies. In float64, so that small gradients do not underflow."""
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double().train()
    x = torch.randn(1, steps, WIDTH, generator=generator, dtype=torch.float64)
    state = {name: value.double() for name, value in layer.initial_state(1).items()}
    states, y = list[dict[str, Tensor]](), x
    for t in range(steps):
        y, state = layer(x[:, t : t + 1], state)
        for value in state.values():
            value.retain_grad()
        states.append(state)
    (y * torch.randn(y.shape, generator=generator, dtype=torch.float64)).sum().backward()

    def norm(tensors: list[Tensor]) -> float:
        return float(sum(t.grad.square().sum() for t in tensors if t.grad is not None)) ** 0.5

    back = [norm([*state.values()]) for state in reversed(states[:-1])]
    return np.array(back), norm([*layer.parameters()])


def recurrent(gain: float) -> Recurrent:
    """A vanilla RNN with small input weights, whose recurrence is a rotation times ``gain``."""
    layer = Recurrent("rnn", WIDTH, WIDTH)
    nn.init.orthogonal_(layer.rnn.weight_hh_l0, gain)
    nn.init.normal_(layer.rnn.weight_ih_l0, std=0.01)
    return layer


def remembering() -> Recurrent:
    """An LSTM whose forget gates are initialised open (Jozefowicz et al. 2015)."""
    layer = Recurrent("lstm", WIDTH, WIDTH)
    with torch.no_grad():
        layer.rnn.bias_hh_l0[WIDTH : 2 * WIDTH] += 3
    return layer


def curves() -> dict[str, NDArray[np.float64]]:
    torch.manual_seed(0)
    found = {}
    for name, gain in (("vanilla, gain 0.8: vanishes", 0.8), ("vanilla, gain 1.5: explodes", 1.5)):
        found[name], whole = gradients(recurrent(gain))
    # clipping scales the whole gradient, so that the norm of the weights' gradient is at most CLIP
    found[f"the same, clipped: norm {whole:.1e} cut to {CLIP:g}"] = found[name] * min(1.0, CLIP / whole)
    found["LSTM, forget gates begin open"], _ = gradients(remembering())
    found["GRU, gates begin half open"], _ = gradients(Recurrent("gru", WIDTH, WIDTH))
    found["minGRU, gates begin at 1 to 100 steps"], _ = gradients(MinGRU(WIDTH, WIDTH))
    return found


def draw_gradients(path: Path) -> None:
    with figure(path) as axes:
        for name, norms in curves().items():
            axes.semilogy(np.arange(1, len(norms) + 1), norms, label=name, ls="--" if "clipped" in name else "-")
        axes.set(xlabel="steps before the loss", ylabel="norm of the gradient at the state", ylim=(1e-20, 1e12))
        axes.set_title(f"gradients through {STEPS} unrolled steps, {WIDTH} units, before training")


def depths(layers: int = 8, width: int = 32, steps: int = 300, seed: int = 0) -> dict[str, list[float]]:
    """Training losses of an LSTM stack, plain and with residual connections, from the same weights on the same batches.
    The task: is the product of the last three random signs of a stream positive?"""
    found = {}
    for name in ("plain", "residual"):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed + 1)
        stack: dict[str, Streaming] = {str(i): Recurrent("lstm", width, width) for i in range(layers)}
        if name == "residual":
            stack = {key: Residual(layer, width) for key, layer in stack.items()}
        body, enter = Chain(stack), nn.Linear(1, width)
        leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))
        weights = [weight for part in (enter, body, leave) for weight in part.parameters()]
        optimiser, curve = torch.optim.AdamW(weights, lr=2e-3), []
        for _ in range(steps):
            signs = torch.randint(0, 2, (32, 60), generator=generator) * 2.0 - 1
            wanted = (signs[:, 2:] * signs[:, 1:-1] * signs[:, :-2] > 0).float()
            y, _ = body(enter(signs[..., None]), body.initial_state(len(signs)))
            loss = F.binary_cross_entropy_with_logits(leave(y)[:, 2:, 0], wanted)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, CLIP)
            optimiser.step()
            curve.append(float(loss.detach()))
        found[name] = curve
    return found


def draw_depth(losses: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the losses of "plain" and "residual"."""
    with figure(path) as axes:
        for name, label in (("plain", "one on the other"), ("residual", "each added to its input")):
            axes.plot(np.asarray(losses[name]), label=label)
        axes.axhline(np.log(2), color="grey", ls=":", label="guessing")
        axes.set(xlabel="training step", ylabel="training loss, nats", ylim=(-0.02, 0.9))
        axes.set_title("8 layers of LSTM: the product of the last three signs")


class figure:  # noqa: N801
    """A context with axes, which saves the figure at its end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self):  # type: ignore[no-untyped-def]
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        self.figure, axes = pyplot.subplots(figsize=(8, 4.5))
        self.axes = axes
        return axes

    def __exit__(self, *error: object) -> None:
        from matplotlib import pyplot

        self.axes.legend(fontsize=8, ncols=2, loc="upper center")
        self.axes.grid(alpha=0.3)
        self.figure.tight_layout()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.figure.savefig(self.path, dpi=100)
        pyplot.close(self.figure)
