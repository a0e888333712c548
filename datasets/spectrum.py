"""Sound to log-mel bands: what a filter bank of the ear's spacing measures, in decibels.

Frames of WINDOW seconds (Hann window w), one every HOP seconds, the first centred on the first sample, silence
around the recording. With X the discrete Fourier transform of w x, f its frequencies and |4 X^2| / (sum w)^2 the
power of a sinusoid of amplitude 1 (1 on its peak), the level of band b in a frame is
    10 log10(sum_f W_b(f) 4 |X(f)|^2 / (sum w)^2 + 1e-10)  dB of full scale,
with W_b triangles of height 1 whose corners are equally spaced on the mel scale 2595 log10(1 + f / 700 Hz)
(O'Shaughnessy 1987; Davis and Mermelstein 1980), from LOW to HIGH hertz.
"""

from __future__ import annotations

import io
import wave

import numpy as np
from numpy.typing import NDArray

from neuro.errors import BadEventFile

BANDS = 40
LOW, HIGH = 100.0, 4000.0  # hertz
WINDOW, HOP = 0.025, 0.010  # seconds
MIN_RATE, MAX_RATE = 8000, 192_000  # samples per second; below 2 HIGH the upper bands would be empty
MAX_SECONDS = 30.0
RESOLUTION = 15.625  # hertz between two frequencies of the transform: finer than the narrowest band
AGAIN = "Fetch or copy the file again."


def read_wav(data: bytes, file: str) -> tuple[NDArray[np.float64], int]:
    """(samples in -1..1, samples per second) of a WAV file with one channel of 16-bit PCM.

    Raises:
        BadEventFile: another format, damaged, cut, empty, or longer than MAX_SECONDS.
    """
    try:
        with wave.open(io.BytesIO(data)) as sound:
            channels, width, rate, frames, *_ = sound.getparams()
            if (channels, width) != (1, 2) or not MIN_RATE <= rate <= MAX_RATE:
                raise ValueError(
                    f"{channels} channel(s) of {8 * width} bits at {rate} Hz, read is 1 channel of 16 bits at "
                    f"{MIN_RATE}..{MAX_RATE} Hz"
                )
            if not 0 < frames <= MAX_SECONDS * rate:
                raise ValueError(f"{frames} samples, allowed 1..{int(MAX_SECONDS * rate)}")
            content = sound.readframes(frames)
    except (wave.Error, EOFError, ValueError, RuntimeError, OverflowError) as cause:
        raise BadEventFile(
            f"{file}: not a WAV recording that can be read ({str(cause) or 'it ends early'}). {AGAIN}"
        ) from cause
    if len(content) != 2 * frames:
        raise BadEventFile(f"{file}: cut, {len(content) // 2} of {frames} samples are there. {AGAIN}")
    return np.frombuffer(content, "<i2") / 32768.0, rate


def log_mel(sound: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """float64[frames, BANDS], dB of full scale (see the module); frames = ceil(samples / (HOP rate))."""
    n, hop = round(WINDOW * rate), round(HOP * rate)
    frames = -(-len(sound) // hop)
    padded = np.concatenate([np.zeros(n // 2), sound, np.zeros(n)])
    window = np.hanning(n + 2)[1:-1]
    size = round(rate / RESOLUTION)
    cut = np.lib.stride_tricks.sliding_window_view(padded, n)[: frames * hop : hop]
    power = 4.0 * np.abs(np.fft.rfft(cut * window, size)) ** 2 / window.sum() ** 2
    found: NDArray[np.float64] = 10.0 * np.log10(power @ _triangles(rate, size).T + 1e-10)
    return found


def _triangles(rate: int, size: int) -> NDArray[np.float64]:
    """W_b(f): float64[BANDS, size // 2 + 1]."""
    ends = 2595.0 * np.log10(1.0 + np.array([LOW, HIGH]) / 700.0)
    corners = 700.0 * (10.0 ** (np.linspace(ends[0], ends[1], BANDS + 2) / 2595.0) - 1.0)
    left, top, right = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    f = np.arange(size // 2 + 1) * (rate / size)
    return np.maximum(0.0, np.minimum((f - left) / (top - left), (right - f) / (right - top)))
