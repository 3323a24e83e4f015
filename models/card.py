"""The one-page card of a trained model: data, licence, error rates, examples, streams per core, loss curves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import checkpoint, data, decoding
from models.acoustic import Acoustic, parameters
from models.data import Utterance
from models.recipes.speech import LEFT_OUT
from models.score import log_probs


def strings(takes: list[Utterance], count: int = 60, seed: int = 0) -> list[Utterance]:
    """Isolated takes of one speaker joined into strings of 3 to 7 with 0.1 to 0.4 s of near-silence around each."""
    rng = np.random.default_rng(seed)

    def quiet() -> data.Pcm:
        return rng.normal(0, 3, int(rng.uniform(0.1, 0.4) * 8000)).astype(np.int16)

    out = []
    for i in range(count):
        chosen = [takes[int(k)] for k in rng.integers(len(takes), size=int(rng.integers(3, 8)))]
        pcm = np.concatenate([part for u in chosen for part in (quiet(), u.pcm)] + [quiet()])
        out.append(Utterance(str(i), chosen[0].speaker, " ".join(u.text for u in chosen), [], 30, pcm))
    return out


def reported(name: str, rate: int, every: int) -> dict[str, list[Utterance]]:
    """The recordings of the report, which nothing was trained or tuned on; ``every``: take one in so many."""
    test = data.speechocean("test", rate)
    if name == "digits":
        takes = [u for u in data.fsdd(rate) if u.speaker == LEFT_OUT]
        return {
            "test digit strings": [u for u in test if u.is_digits][::every],
            f"left-out speaker {LEFT_OUT}, strings of 3 to 7": strings(takes)[::every],
        }
    return {
        "test adults": [u for u in test if u.age >= 16][::every],
        "test children": [u for u in test if u.age < 16][::every],
    }


def streams_per_core(model: Acoustic, seconds: float = 0.5, chunk: int = 8) -> float:
    """Seconds of sound per second of one core, one stream at a time in chunks of ``chunk`` steps, in PyTorch."""
    pcm, state = torch.zeros(1, chunk * model.hop, dtype=torch.int16), model.initial_state(1)
    runs, start = 0, time.process_time()
    with torch.no_grad():
        while time.process_time() - start < seconds:
            _, state = model(pcm, state)
            runs += 1
    return runs * chunk * model.hop / model.sample_rate / (time.process_time() - start)


def draw(log: Path, picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure, left = pyplot.subplots(figsize=(7, 3.5))
    steps = [row["step"] for row in rows]
    left.plot(steps, [row["loss"] for row in rows], color="tab:blue")
    left.set(xlabel="step", ylabel="CTC loss (training, augmented)")
    right = left.twinx()
    right.plot(steps, [row["error"] for row in rows], color="tab:red")
    right.set_ylabel("phone error rate (development)")
    figure.tight_layout()
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)


def write(folder: Path, decoder: dict[str, Any], every: int = 1) -> dict[str, float]:
    """``card.md`` and ``losses.png`` beside ``best.pt``; decoder settings and scores go into the checkpoint too."""
    torch.set_num_threads(1)
    model, info = checkpoint.load(folder / "best.pt")
    lexicon, lm = None, None
    if info["lexicon"]:
        entries = ((word, way) for word, ways in info["lexicon"].items() for way in ways)
        lexicon = "".join(f"{word}\t{' '.join(way)}\n" for word, way in entries).encode()
    elif (folder / "lexicon.txt").exists():
        lexicon, lm = (folder / "lexicon.txt").read_bytes(), (folder / "lm.bin").read_bytes()
    task = decoding.transcriber(info, lexicon, lm, decoder)
    lines, examples, scores = [], [], {}
    for name, utterances in reported(info["name"], info["sample_rate"], every).items():
        heard = decoding.decode_all(task, log_probs(model, [u.pcm for u in utterances]))
        result = decoding.score(utterances, heard)
        scores[f"wer {name}"] = round(result.rate, 4)
        lines.append(f"| {name} | {result} |")
        wrong = [(said, got) for said, got in result.pairs if said != got]
        examples += [f"- {said} -> {got or '(nothing)'}" for said, got in wrong[:4]]
    draw(folder / "log.jsonl", folder / "losses.png")
    sample = f" (one recording in {every})" if every > 1 else ""
    (folder / "card.md").write_text(
        f"""# {info["name"]}

{info["family"]}, {parameters(model) / 1e6:.2f} M parameters, {info["sample_rate"]} Hz,
a step every {1000 * model.hop // model.sample_rate} ms, {info["steps"]} steps in {info["minutes"]} minutes of training.

- Data: {info["data"]}
- Licence of the data: {info["licence"]}
- Real-time streams on one core, in PyTorch, one at a time: {streams_per_core(model):.0f}

Word error rate with its 95 % interval over speakers, by the daemon's decoder {json.dumps(decoder)}{sample}:

| recordings | word error rate |
|---|---|
{chr(10).join(lines)}

Errors, said -> heard:

{chr(10).join(examples)}

![loss and phone error](losses.png)
"""
    )
    info["options"] = {**info.get("options", {}), "decoder": decoder}
    info["scores"] = {**info["scores"], **scores}
    checkpoint.save(folder / "best.pt", model, info)
    return scores
