"""Spoken words, made by espeak-ng, as mel-frequency cepstral coefficients: a task like keyword spotting."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import product
from tempfile import NamedTemporaryFile
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.fft import dct
from scipy.io import wavfile
from scipy.signal import resample_poly

WORDS: Final = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go", "open", "close")
RATE: Final = 16_000
N_STEPS: Final = 49  # of 20 ms, in windows of 40 ms: one second

_VOICES: Final = tuple(f"en-us+{kind}{n}" for kind, count in (("m", 7), ("f", 5)) for n in range(1, count + 1))
N_VOICES: Final = len(_VOICES)
_SPEEDS: Final = (120, 150, 180, 210)  # words a minute
_PITCHES: Final = (35, 50, 65)
_WINDOW: Final = 640
_HOP: Final = 320
_N_BANDS: Final = 40

FloatArray = npt.NDArray[np.float64]


def spoken_words(
    rng: np.random.Generator, n_features: int, voices: Sequence[int] = range(N_VOICES)
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Features [clips, steps, features], the number of each clip's word, and that of its voice.

    Clips have noise, and lie at some time within their second, at some loudness: others at each call.
    """
    clips = list(product(range(len(WORDS)), voices, _SPEEDS, _PITCHES))
    features = np.stack([_features(_noisy(_clip(*clip), rng), n_features) for clip in clips])
    numbers = np.array(clips)
    return features, numbers[:, 0], numbers[:, 1]


@cache  # for other seeds
def _clip(word: int, voice: int, speed: int, pitch: int) -> FloatArray:
    program = shutil.which("espeak-ng")
    if program is None:
        sys.exit("espeak-ng not found on this machine; install it: apt-get install espeak-ng")
    with NamedTemporaryFile(suffix=".wav") as file:  # through a pipe, the header would have no lengths
        settings = ["-v", _VOICES[voice], "-s", str(speed), "-p", str(pitch)]
        subprocess.run([program, *settings, "-w", file.name, WORDS[word]], capture_output=True, check=True)
        rate, samples = wavfile.read(file.name)
    return np.asarray(resample_poly(samples / 2**15, RATE, rate))


def _noisy(samples: FloatArray, rng: np.random.Generator) -> FloatArray:
    """One second."""
    second = np.zeros(RATE)
    kept = samples[:RATE]
    start = rng.integers(0, RATE - len(kept) + 1)
    second[start : start + len(kept)] = kept * rng.uniform(0.3, 1.0)
    return second + rng.normal(size=RATE) * 10 ** rng.uniform(-3.0, -2.0)


def _features(samples: FloatArray, n_features: int) -> FloatArray:
    """MFCC [steps, features]: windows of 40 ms, 40 mel bands from 20 to 4,000 Hz."""
    starts = np.arange(N_STEPS) * _HOP
    windows = samples[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows)) ** 2
    return np.asarray(dct(np.log(power @ _mel_bands().T + 1e-6), norm="ortho")[:, :n_features])


def _mel_bands() -> FloatArray:
    """Triangles [bands, frequencies], equally far apart on the mel scale."""
    mel = np.linspace(*(2595 * np.log10(1 + np.array([20, 4000]) / 700)), _N_BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    frequencies = np.fft.rfftfreq(_WINDOW, 1 / RATE)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    return np.maximum(0, np.minimum((frequencies - low) / (middle - low), (high - frequencies) / (high - middle)))
