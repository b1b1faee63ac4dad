"""What float and integer models share: kinds of layers, and the order in which they may stand. No numbers live here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args

from quantgru.activations import Merge
from quantgru.checks import check_flag, check_name, one_of
from quantgru.errors import ModelError


@dataclass(frozen=True, eq=False)
class AnyLayer(ABC):
    """A layer of a float model or of an integer one; all but reversals, which have no width of their own."""

    name: str

    @property
    @abstractmethod
    def n_inputs(self) -> int:
        """Values that the layer reads at each step."""

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """Values that the layer gives at each step."""


@dataclass(frozen=True, eq=False)
class AnyGru(AnyLayer):
    """A GRU layer of H = n_units units."""

    @property
    @abstractmethod
    def n_units(self) -> int:
        """Values of the state h."""

    @property
    def n_outputs(self) -> int:
        return self.n_units


GruT = TypeVar("GruT", bound=AnyGru)


@dataclass(frozen=True, eq=False)
class AnyBidirectional(AnyLayer, Generic[GruT]):
    """Two GRU layers on the same sequence; `backward` reads it from its end."""

    forward: GruT
    backward: GruT
    merge: Merge = "concat"
    final: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "bidirectional layer")
        one_of(self._where, "merge", self.merge, get_args(Merge))
        check_flag(self.final, self._where, "final")
        forward, backward = ((gru.n_inputs, gru.n_units) for gru in (self.forward, self.backward))
        if forward != backward:
            raise ModelError(
                f"{self._where}: inputs and units {forward} forward, {backward} backward, expected the same"
            )

    @property
    def _where(self) -> str:
        return f"bidirectional layer {self.name!r}"

    @property
    def n_inputs(self) -> int:
        return self.forward.n_inputs

    @property
    def n_outputs(self) -> int:
        return self.forward.n_units * (2 if self.merge == "concat" else 1)


class AnyDense(AnyLayer):
    """A dense layer."""


class AnyEmbedding(AnyLayer):
    """A vector for each token number 0 ... n_tokens - 1."""

    @property
    @abstractmethod
    def n_tokens(self) -> int: ...

    @property
    def n_inputs(self) -> int:
        return 1


@dataclass(frozen=True)
class Reverse:
    """The sequence from its last step to its first [R22]."""

    name: str = "reverse"

    def __post_init__(self) -> None:
        check_name(self.name, "reverse")


LayerT = TypeVar("LayerT", bound=AnyLayer | Reverse)
DenseT = TypeVar("DenseT", bound=AnyDense)
EmbeddingT = TypeVar("EmbeddingT", bound=AnyEmbedding)


@dataclass(frozen=True, eq=False)
class Structure(Generic[LayerT, GruT, DenseT, EmbeddingT]):
    """Layers in the order in which they run, at least one of them recurrent."""

    layers: tuple[LayerT, ...]

    def check_order(self, where: str, last_step: bool) -> None:
        """Raises ModelError unless each layer can read what the one before it gives."""
        if not self.grus:
            raise ModelError(f"{where}: no GRU layer; at least one is needed, with dense layers as you like")
        width = self.n_inputs
        for i, layer in enumerate(self.layers):
            if isinstance(layer, AnyEmbedding) and i > 0:
                raise ModelError(
                    f"embedding {layer.name!r}: after another layer, but it reads token numbers: put it first"
                )
            if isinstance(layer, Reverse):
                continue
            if layer.n_inputs != width:
                raise ModelError(
                    f"layer {layer.name!r}: {layer.n_inputs} inputs, but the layer before it gives {width} values"
                )
            width = layer.n_outputs
            if isinstance(layer, AnyBidirectional) and layer.final:
                _check_single_vector(layer, self.layers[i + 1 :], last_step)

    @property
    def grus(self) -> tuple[GruT, ...]:
        """All GRU layers, of a bidirectional layer first the forward one."""
        found: list[Any] = []
        for layer in self.layers:
            if isinstance(layer, AnyGru):
                found.append(layer)
            elif isinstance(layer, AnyBidirectional):
                found += [layer.forward, layer.backward]
        return tuple(found)

    @property
    def dense(self) -> tuple[DenseT, ...]:
        """All dense layers, wherever they are."""
        found: list[Any] = [layer for layer in self.layers if isinstance(layer, AnyDense)]
        return tuple(found)

    @property
    def embedding(self) -> EmbeddingT | None:
        """The first layer, if it reads token numbers."""
        found: list[Any] = [layer for layer in self.layers if isinstance(layer, AnyEmbedding)]
        return found[0] if found else None

    @property
    def body(self) -> tuple[LayerT, ...]:
        """All layers before the head."""
        n_head = 0
        while isinstance(self.layers[-1 - n_head], AnyDense):  # some layer is none: one is recurrent
            n_head += 1
        return self.layers[: len(self.layers) - n_head]

    @property
    def head(self) -> tuple[DenseT, ...]:
        """The dense layers at the end, which work on each step alone: only steps whose output is wanted need them."""
        found: list[Any] = [*self.layers[len(self.body) :]]
        return tuple(found)

    @property
    def reversed_output(self) -> bool:
        """Whether outputs of every step begin with that of the last step of the input."""
        return sum(isinstance(layer, Reverse) for layer in self.layers) % 2 == 1

    @property
    def n_inputs(self) -> int:
        """Features of a step; 1 of token numbers."""
        return next(layer.n_inputs for layer in self.layers if not isinstance(layer, Reverse))

    @property
    def n_outputs(self) -> int:
        """Values of each output."""
        return next(layer.n_outputs for layer in reversed(self.layers) if not isinstance(layer, Reverse))

    @property
    def widths(self) -> str:
        """Of what goes in and of what each layer gives: "6 → 24 → 3"."""
        of_layers = [layer.n_outputs for layer in self.layers if not isinstance(layer, Reverse)]
        return " → ".join(map(str, [self.n_inputs, *of_layers]))


def _check_single_vector(layer: AnyBidirectional[Any], after: tuple[AnyLayer | Reverse, ...], last_step: bool) -> None:
    """Raises ModelError where something needs every step of a layer that gives its final states only."""
    recurrent = [later for later in after if not isinstance(later, AnyDense)]
    if recurrent or not last_step:
        found = f"layer {recurrent[0].name!r}" if recurrent else "outputs at every step"
        raise ModelError(
            f"bidirectional layer {layer.name!r}: gives its final states only, a single vector, but {found} "
            "after it needs every step"
        )
