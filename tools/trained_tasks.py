"""Tasks with models trained on them, for the benches of quantization. Models are kept in build/tasks.

rows     digits, row by row: 8 -> 32, 8 steps, 10 classes
pixels   digits, pixel by pixel: 1 -> 48, 64 steps, 10 classes
words    spoken words, 12 classes: 10 -> 154, 49 steps
words_32 the same words with 16 features: 16 -> 32
gestures six movements of a hand, as an accelerometer feels them, computed: 3 -> 16, 50 steps
memory   two leaky sums with time constants of 100 and 300 steps, over 1,000 steps: 2 -> 32, regression
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from rich.progress import track
from scipy.spatial.transform import Rotation
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from speech_words import N_VOICES, WORDS, spoken_words
from torch import nn

import quantgru as qg

FloatArray = npt.NDArray[np.float64]

N_GESTURES: Final = 6
N_TAKES: Final = 5  # of each clip to test with
MODELS: Final = Path(__file__).resolve().parent.parent / "build" / "tasks"


@dataclass(frozen=True, eq=False)
class Data:
    """x [sequences, steps, features]; y is a class [sequences], or what each step should give [..., steps, outputs]."""

    x: FloatArray
    y: npt.NDArray[np.generic]

    def __getitem__(self, chosen: npt.NDArray[np.int64]) -> Data:
        return Data(self.x[chosen], self.y[chosen])


@dataclass(frozen=True)
class Task:
    """How data are made, by seed: to train on, and to test; the model's shape; how it is trained.

    takes  how many sequences of the test data are made from one clip: i, and every n/takes-th one after it
    """

    name: str
    make: Callable[[int], tuple[Data, Data]] = field(repr=False)  # its address differs from run to run
    n_inputs: int
    n_units: int
    n_outputs: int
    classes: bool
    epochs: int
    batch: int = 64
    learning_rate: float = 1e-2
    longest_memory: float = 0.0  # time constants that z starts with, up to so many steps
    takes: int = field(default=1, repr=False)  # files of trained models are named by what is shown


class _Module(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.gru = nn.GRU(task.n_inputs, task.n_units, batch_first=True)
        self.dense = nn.Linear(task.n_units, task.n_outputs)
        self._last = task.classes
        if task.longest_memory:
            with torch.no_grad():  # "chrono" initialisation: z = 1 - 1 / time constant
                times = torch.empty(task.n_units).uniform_(1, task.longest_memory)
                self.gru.bias_hh_l0[task.n_units : 2 * task.n_units] = torch.log(times)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states, _ = self.gru(x)
        return self.dense(states[:, -1] if self._last else states)


def trained(task: Task, seed: int) -> tuple[qg.FloatModel, Data, Data]:
    """The model, trained now or before, with its data for training and test."""
    training, test = task.make(seed)
    path = MODELS / f"{task.name}-{seed}-{zlib.crc32(repr(task).encode()):08x}.qgf"
    if not path.is_file():
        MODELS.mkdir(parents=True, exist_ok=True)
        qg.load(_train(task, seed, training), name=f"task_{task.name}").save(path)
    return qg.load(path), training, test


def _train(task: Task, seed: int, data: Data) -> nn.Module:
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # sums in one order, whatever the machine has
    module = _Module(task)
    optimizer = torch.optim.AdamW(module.parameters(), task.learning_rate, weight_decay=1e-3)
    n_batches = len(data.x) // task.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, task.learning_rate, total_steps=task.epochs * n_batches)
    x = torch.tensor(data.x, dtype=torch.float32)
    y = torch.tensor(data.y, dtype=torch.long if task.classes else torch.float32)
    loss = nn.CrossEntropyLoss() if task.classes else nn.MSELoss()
    for _ in track(range(task.epochs), f"training {task.name}, seed {seed}", transient=True):
        for chosen in torch.randperm(len(x))[: n_batches * task.batch].split(task.batch):
            optimizer.zero_grad()
            loss(module(x[chosen]), y[chosen]).backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return module.eval()


def _digits(n_features: int) -> Callable[[int], tuple[Data, Data]]:
    def make(seed: int) -> tuple[Data, Data]:
        images, labels = load_digits(return_X_y=True)
        x = images.reshape(len(images), -1, n_features) / 16
        parts = train_test_split(x, labels, test_size=400, stratify=labels, random_state=seed)
        return Data(parts[0], parts[2]), Data(parts[1], parts[3])

    return make


def _words(n_features: int) -> Callable[[int], tuple[Data, Data]]:
    """Three of the twelve voices are kept for the test: 432 clips, 2,160 takes. Features are standardised."""

    def make(seed: int) -> tuple[Data, Data]:
        rng = np.random.default_rng(seed)
        x, words, voices = spoken_words(rng, n_features)
        kept = np.sort(rng.choice(N_VOICES, 3, replace=False))
        heard = ~np.isin(voices, kept)
        training = Data(x[heard], words[heard])
        takes = [(x[~heard], words[~heard])] + [spoken_words(rng, n_features, kept)[:2] for _ in range(N_TAKES - 1)]
        test = Data(*(np.concatenate(parts) for parts in zip(*takes, strict=True)))
        mean, deviation = training.x.mean(axis=(0, 1)), training.x.std(axis=(0, 1))
        training, test = (Data((data.x - mean) / deviation, data.y) for data in (training, test))
        return training, test

    return make


def _gestures(seed: int) -> tuple[Data, Data]:
    """Accelerations in g, 50 a second, gravity included. Each hand has its own pace, strength, tilt and beginning."""
    rng = np.random.default_rng(seed)
    n, steps = 4000, 50
    kinds = rng.integers(0, N_GESTURES, n)
    paces, strengths = rng.uniform(1.5, 3.0, (n, 1)), rng.uniform(0.3, 1.0, (n, 1, 1))
    phase = 2 * np.pi * (paces * np.arange(steps) / 50 + rng.random((n, 1)))
    along, across, nothing = np.cos(phase), np.sin(phase), np.zeros_like(phase)
    moves = [  # at rest, two circles, an eight, from side to side, up and down
        (nothing, nothing, nothing),
        (along, across, nothing),
        (along, -across, nothing),
        (along, np.sin(2 * phase), nothing),
        (along, nothing, nothing),
        (nothing, nothing, along),
    ]
    moved = np.stack([np.stack(move, axis=-1) for move in moves])[kinds, np.arange(n)]
    moved[np.arange(steps) < rng.integers(0, steps // 2, (n, 1))] = 0
    tilts = Rotation.from_euler("xyz", rng.uniform(-40, 40, (n, 3)), degrees=True).as_matrix()
    felt = (strengths * moved + [0, 0, 1]) @ tilts + rng.normal(0, 0.15, (n, steps, 3))
    data, chosen = Data(felt, kinds), np.arange(n)
    return data[chosen[: n // 2]], data[chosen[n // 2 :]]


def _memory(seed: int) -> tuple[Data, Data]:
    """Rare pulses in, two sums of them that leak with time constants of 100 and 300 steps."""
    rng = np.random.default_rng(seed)
    pulses = rng.normal(size=(160, 1000, 2)) * (rng.random((160, 1000, 2)) < 0.05)
    keep = 1 - 1 / np.array([100.0, 300.0])
    sums = np.zeros_like(pulses)
    for t in range(1000):
        sums[:, t] = keep * (sums[:, t - 1] if t else 0) + 0.2 * pulses[:, t]
    chosen = np.arange(160)
    data = Data(pulses, sums)
    return data[chosen[:128]], data[chosen[128:]]


TASKS: Final = (
    Task("rows", _digits(8), 8, 32, 10, classes=True, epochs=60),
    Task("pixels", _digits(1), 1, 48, 10, classes=True, epochs=120),
    Task("words", _words(10), 10, 154, len(WORDS), classes=True, epochs=25, learning_rate=3e-3, takes=N_TAKES),
    Task("words_32", _words(16), 16, 32, len(WORDS), classes=True, epochs=40, takes=N_TAKES),
    Task("gestures", _gestures, 3, 16, N_GESTURES, classes=True, epochs=30),
    Task("memory", _memory, 2, 32, 2, classes=False, epochs=80, batch=32, longest_memory=300.0),
)
