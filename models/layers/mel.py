"""Log-mel energies of int16 PCM, computed by a fixed convolution."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from models.layers.base import State, Streaming


def hz_to_mel(hz: float) -> float:
    """O'Shaughnessy's mel scale (HTK's constants)."""
    return 2595.0 * math.log10(1.0 + hz / 700.0)


def mel_to_hz(mel: float) -> float:
    return 700.0 * (10.0 ** (mel / 2595.0) - 1.0)


def slaney_to_hz(mel: float) -> float:
    """Slaney's scale (Auditory Toolbox 1998): linear up to 1 kHz, then logarithmic; 15 mel are 1 kHz."""
    return 200.0 * mel / 3.0 if mel < 15.0 else 1000.0 * math.exp((mel - 15.0) * math.log(6.4) / 27.0)


def hz_to_slaney(hz: float) -> float:
    return 3.0 * hz / 200.0 if hz < 1000.0 else 15.0 + 27.0 * math.log(hz / 1000.0) / math.log(6.4)


#: The functions of each scale: Hz to mel, mel to Hz.
SCALES = {"htk": (hz_to_mel, mel_to_hz), "slaney": (hz_to_slaney, slaney_to_hz)}


def mel_corners(bands: int, low: float, high: float, scale: str) -> list[float]:
    """Corner frequencies in Hz, evenly spaced in mel from ``low`` to ``high`` Hz; band ``i`` has the corners i, i + 1
    and i + 2."""
    there, back = SCALES[scale]
    first, last = there(low), there(high)
    return [back(first + (last - first) * i / (bands + 1)) for i in range(bands + 2)]


def mel_filters(frequencies: Tensor, corners: list[float]) -> Tensor:
    """Triangular filters [len(frequencies), bands] with these corners in Hz."""
    bands = len(corners) - 2
    filters = torch.zeros(len(frequencies), bands, dtype=torch.float64)
    for band in range(bands):
        left, centre, right = corners[band : band + 3]
        rising = (frequencies - left) / (centre - left)
        falling = (right - frequencies) / (right - centre)
        filters[:, band] = torch.minimum(rising, falling).clamp(min=0.0)
    return filters


class LogMel(Streaming):
    """int16 PCM [B, N] -> log-mel energies [B, N / hop, bands], float32.

    The short-time Fourier transform is a Conv1d with a fixed Hann-windowed cosine and sine basis, because ONNX's own
    STFT is slow on CPUs and missing on CUDA. Frame t sees the window that ends with sample (t + 1) * hop; the overlap
    of ``window - hop`` samples is the state. Samples are scaled to [-1, 1). ``floor`` is added to each energy before
    the logarithm, so that digital silence is a finite number just below the noise of a real recording. ``size``: points
    of the transform; fewer make a smaller file, but allow fewer bands. ``scale``: a key of :data:`SCALES`. ``low`` and
    ``high``: in Hz. ``centred``: each window's mean is subtracted first, so that a constant offset of the microphone
    has no energy in any band. Raises ``ValueError`` if a band would be empty.
    """

    def __init__(
        self,
        sample_rate: int,
        bands: int = 40,
        floor: float = 1e-6,
        low: float = 60.0,
        size: int | None = None,
        high: float | None = None,
        scale: str = "htk",
        centred: bool = False,
    ) -> None:
        super().__init__()
        self.sample_rate, self.bands, self.floor = sample_rate, bands, floor
        self.stride = sample_rate // 100  # 10 ms
        self.window = sample_rate // 40  # 25 ms
        self.receptive_field = self.window
        high = high or 0.475 * sample_rate
        # by default more points than the window has samples, so that no low filter is empty
        size = size or 1 << (self.window - 1).bit_length()
        frequencies = torch.arange(size // 2 + 1, dtype=torch.float64) * sample_rate / size
        corners = mel_corners(bands, low, high, scale)
        filters = mel_filters(frequencies, corners)
        centres = torch.tensor([hz_to_mel(hz) for hz in corners[1:-1]])
        self.register_buffer("mels", centres, persistent=False)  # of the bands, on the HTK scale
        areas = torch.tensor([2.0 / (corners[i + 2] - corners[i]) for i in range(bands)])
        self.register_buffer("areas", areas, persistent=False)  # factors that give each filter an area of 1 (in Hz)
        if not filters.any(0).all():
            raise ValueError(f"{bands} bands are too many for a transform of {size} points: some would be empty")
        used = filters.sum(1) > 0
        n = torch.arange(self.window, dtype=torch.float64)
        hann = 0.5 - 0.5 * torch.cos(2 * math.pi * n / self.window)
        angle = 2 * math.pi * frequencies[used][:, None] * n[None] / sample_rate
        basis = torch.cat([hann * torch.cos(angle), hann * torch.sin(angle)]) / 32768.0
        if centred:
            basis -= basis.mean(1, keepdim=True)
        self.register_buffer("basis", basis.float()[:, None], persistent=False)  # [2F, 1, window]
        # one matrix product adds cos^2 and sin^2 and sums over the bins of each band
        self.register_buffer("filters", torch.cat([filters[used]] * 2).float(), persistent=False)  # [2F, bands]

    def initial_state(self, batch: int) -> State:
        return {"overlap": torch.zeros(batch, self.window - self.stride, device=self.basis.device)}

    def forward(self, pcm: Tensor, state: State) -> tuple[Tensor, State]:
        samples = torch.cat([state["overlap"], pcm.to(torch.float32)], dim=1)
        spectrum = nn.functional.conv1d(samples[:, None], self.basis, stride=self.stride)  # [B, 2F, T]
        energy = spectrum.square().transpose(1, 2) @ self.filters
        return (energy + self.floor).log(), {"overlap": samples[:, samples.shape[1] - (self.window - self.stride) :]}
