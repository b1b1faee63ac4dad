"""Models as SPEC.md describes them, and what running them gives: plain values, nothing is computed here."""

from dataclasses import InitVar, dataclass
from typing import NamedTuple

RESET_AFTER, RESET_BEFORE = 0, 1
LINEAR, RELU, SIGMOID, TANH = range(4)
GATE_SIGMOID, GATE_HARD_SIGMOID = range(2)
CANDIDATE_TANH, CANDIDATE_RELU, CANDIDATE_LINEAR, CANDIDATE_SIGMOID, CANDIDATE_HARD_TANH = range(5)
MERGE_CONCAT, MERGE_SUM, MERGE_MUL, MERGE_AVE = range(4)
BOUNDED = (CANDIDATE_TANH, CANDIDATE_SIGMOID, CANDIDATE_HARD_TANH)


@dataclass(frozen=True)
class Matrix:
    """Rows of s8 or s16 codes, each row with its multiplier m and shift s; one k for the matrix."""

    codes: tuple[tuple[int, ...], ...]
    m: tuple[int, ...]
    s: tuple[int, ...]
    k: int

    @property
    def columns(self) -> int:
        return len(self.codes[0])

    @property
    def bits(self) -> int:
        """R17: 16 where a code is no s8."""
        return 8 if all(-128 <= w <= 127 for codes in self.codes for w in codes) else 16


@dataclass(frozen=True)
class Gru:
    """One GRU layer; `c` is empty for RESET_BEFORE. An empty h0 stands for zeros, and is replaced by them."""

    reset: int
    w: Matrix
    u: Matrix
    b: tuple[int, ...]
    c: tuple[int, ...]
    gate: int = GATE_SIGMOID
    candidate: int = CANDIDATE_TANH
    f_h: int = 15
    h0: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.h0:
            object.__setattr__(self, "h0", (0,) * self.units)

    @property
    def units(self) -> int:
        return self.u.columns


@dataclass(frozen=True)
class Bidirectional:
    """Two GRU layers, one of them from the end; `final` is 1 for one vector instead of one at every step."""

    forward: Gru
    backward: Gru
    merge: int
    final: int = 0


@dataclass(frozen=True)
class Reverse:
    """The sequence from its end."""


@dataclass(frozen=True)
class Dense:
    """One dense layer; f_out of SIGMOID and TANH is 15."""

    activation: int
    f_out: int
    matrix: Matrix
    b: tuple[int, ...]


@dataclass(frozen=True)
class Embedding:
    """The codes of each token."""

    codes: tuple[tuple[int, ...], ...]


Layer = Gru | Bidirectional | Reverse | Dense | Embedding


@dataclass(frozen=True)
class Model:
    """Fraction bits of the inputs, and layers. `more` are layers that follow, for callers that keep a head apart."""

    input_fractions: tuple[int, ...]
    last_step: int
    layers: tuple[Layer, ...]
    more: InitVar[tuple[Layer, ...]] = ()

    def __post_init__(self, more: tuple[Layer, ...]) -> None:
        object.__setattr__(self, "layers", (*self.layers, *more))

    @property
    def grus(self) -> tuple[Gru, ...]:
        """All GRU layers in order; of a bidirectional one forward, then backward."""
        return tuple(gru for layer in self.layers for gru in grus_of(layer))

    @property
    def head(self) -> tuple[Dense, ...]:
        """The dense layers after the last GRU layer."""
        last = max(i for i, layer in enumerate(self.layers) if grus_of(layer))
        return tuple(layer for layer in self.layers[last:] if isinstance(layer, Dense))


def grus_of(layer: Layer) -> tuple[Gru, ...]:
    """The GRU layers that a layer is made of."""
    if isinstance(layer, Bidirectional):
        return layer.forward, layer.backward
    return (layer,) if isinstance(layer, Gru) else ()


@dataclass(frozen=True)
class State:
    """h and e of all GRU layers, indexed [layer][unit]."""

    h: tuple[tuple[int, ...], ...]
    e: tuple[tuple[int, ...], ...]


class GruStep(NamedTuple):
    """What one step of one GRU layer computes, of each unit: the new h and e, and u, r and n."""

    h: tuple[int, ...]
    e: tuple[int, ...]
    u: tuple[int, ...]
    r: tuple[int, ...]
    n: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """All that one step computes; u, r and n are indexed [layer][unit] like the state."""

    state: State
    u: tuple[tuple[int, ...], ...]
    r: tuple[tuple[int, ...], ...]
    n: tuple[tuple[int, ...], ...]
    outputs: tuple[int, ...]
    check: int


@dataclass(frozen=True)
class Run:
    """All that the run of a whole sequence computes.

    outputs  of every step; of the last one only, if that is what has a meaning
    check    CRC-32 over them
    state    of each GRU layer after all of its steps
    traces   indexed [GRU layer][t]: what the layer computed when it read its t-th input. The last that a backward
             layer computed is that of t = 0
    """

    outputs: tuple[tuple[int, ...], ...]
    check: int
    state: State
    traces: tuple[tuple[GruStep, ...], ...]
