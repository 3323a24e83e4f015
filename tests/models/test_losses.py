"""The losses that train a model, each against a plain form of what it says."""

from __future__ import annotations

import torch
from torch import nn

from models.speech.ctc import ctc, disagreement, framewise
from models.speech.mixture import UNKNOWN, Targets


def distributions(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)


def test_ctc_is_per_symbol_and_counts_every_view() -> None:
    log_probs, lengths = distributions(4, 9, 5), torch.tensor([9, 7, 9, 7])
    targets = Targets.of([[1, 2, 2], [3]])
    each = nn.functional.ctc_loss(
        log_probs.transpose(0, 1), torch.tensor([1, 2, 2, 3, 1, 2, 2, 3]), lengths, torch.tensor([3, 1, 3, 1]),
        reduction="none",
    )  # fmt: skip
    assert torch.allclose(ctc(log_probs, lengths, targets, 2), each.sum() / 8)


def test_the_framewise_loss_is_of_the_frames_some_steps_ago() -> None:
    frames = torch.tensor([[1, 1, 2, 2, 0, 0, 3, 3, 1, 1]])  # two to a step
    steps = torch.full((1, 5, 2, 4), -20.0)
    for step in range(2, 5):  # step t names the frames of step t - 2, its first two outputs are free
        for i in range(2):
            steps[0, step, i, frames[0, 2 * (step - 2) + i]] = 20.0
    right = framewise(steps.flatten(2), frames, 2, 1)
    assert right < framewise(steps.flatten(2), frames, 1, 1)
    assert right < framewise(steps.flatten(2), frames, 0, 1)
    spoilt = steps.clone()
    spoilt[0, :2] = torch.randn(2, 2, 4)
    assert torch.equal(framewise(spoilt.flatten(2), frames, 2, 1), right)


def test_unknown_frames_teach_nothing() -> None:
    logits = torch.randn(2, 4, 6, requires_grad=True)  # two views, two frames a step, three labels
    frames = torch.tensor([[UNKNOWN] * 4 + [1, 2, 0, 1]])
    framewise(logits, frames, 0, 2).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :2].any()
    assert logits.grad[:, 2:].abs().sum(2).all()
    assert framewise(logits, torch.full((1, 8), UNKNOWN), 0, 2) == 0


def test_views_that_agree_have_nothing_to_learn_from_one_another() -> None:
    view, lengths = distributions(2, 6, 4), torch.tensor([6, 4, 6, 4])
    assert disagreement(torch.cat([view, view]), lengths).abs() < 1e-6
    other = distributions(2, 6, 4, seed=1)
    apart = disagreement(torch.cat([view, other]), lengths)
    assert apart > 0.1
    assert torch.allclose(apart, disagreement(torch.cat([other, view]), lengths))
    cut = other.clone()
    cut[1, 4:] = view[1, 4:]  # beyond the end of the shorter recording nobody has to agree
    assert torch.allclose(apart, disagreement(torch.cat([view, cut]), lengths))


def test_each_view_is_the_others_fixed_target() -> None:
    logits = torch.randn(2, 3, 4, requires_grad=True)
    disagreement(logits.log_softmax(-1), torch.tensor([3, 3])).backward()
    assert logits.grad is not None
    first, second = logits.detach().softmax(-1)
    assert torch.allclose(logits.grad[0], (first - second) / 2, atol=1e-5)
    assert torch.allclose(logits.grad[1], (second - first) / 2, atol=1e-5)
