"""The baseline for the denoiser: a causal Wiener filter with a running estimate of the noise."""

from __future__ import annotations

import numpy as np

from models.speech.augment import Wave
from models.speech.data import Pcm

SIZE = 512
#: Number of frames over which the minimum of the energy estimates the noise: 1.5 s of frames of 16 ms.
MEMORY = 94
#: Ratio of the mean of a smoothed energy to its minimum over that many frames, in noise alone.
BIAS = 1.7
FLOOR = 0.1


def wiener(pcm: Pcm) -> Wave:
    """The filtered recording, float32 of the same length, without delay. Noise: minimum of the recent smoothed energies
    (Martin 2001, without its variable smoothing). A-priori signal-to-noise ratio: decision-directed (Ephraim and Malah
    1984). Gain: Wiener's, -20 dB at least."""
    hop = SIZE // 2
    window = np.sin(np.pi * np.arange(SIZE) / SIZE)
    samples = np.pad(np.asarray(pcm, np.float64) / 32768, (hop, hop + -len(pcm) % hop))
    frames = np.lib.stride_tricks.sliding_window_view(samples, SIZE)[::hop] * window
    spectra = np.fft.rfft(frames)
    energy = np.abs(spectra) ** 2
    smooth, before = energy[0], np.zeros(energy.shape[1])
    late = np.tile(smooth, (MEMORY, 1))
    out = np.zeros(len(samples))
    for t, spectrum in enumerate(spectra):
        smooth = 0.85 * smooth + 0.15 * energy[t]
        late[t % MEMORY] = smooth
        noise = BIAS * late.min(0) + 1e-12
        prior = 0.98 * before / noise + 0.02 * np.maximum(energy[t] / noise - 1.0, 0.0)
        gain = np.maximum(prior / (1.0 + prior), FLOOR)
        before = (gain**2) * energy[t]
        out[t * hop : t * hop + SIZE] += window * np.fft.irfft(gain * spectrum)
    return out[hop : hop + len(pcm)].astype(np.float32)
