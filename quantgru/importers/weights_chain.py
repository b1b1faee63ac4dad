"""The text `chain`: the modules of a file that holds weights only, in the order in which they run.

A state dict, a `.safetensors` or a `.weights.h5` file says what the weights are, not what is done with them. The user
says it, in words with spaces between them:

    NAME              a module of the file: its GRU layers, its dense layer, its embedding or its normalisation
    last              the last step from here on
    final             the final states: of a bidirectional GRU those of both directions after all steps
    reverse           the steps from the last to the first (go_backwards of Keras is "reverse NAME")
    relu, sigmoid, tanh, softmax, log_softmax  on what the word before gives

A name is followed by what the file does not say about its module, if anything, in brackets with commas:

    gru(hard_sigmoid, relu)  the functions of gates and candidate; otherwise sigmoid and tanh
    gru(sum)                 how a bidirectional GRU merges its directions: concat, sum, mul or ave; otherwise concat
    gru(before)              where the reset gate acts, after or before the product, for a GRU whose file does not say it
    matrix(embedding)        a lone matrix that comes first: an embedding, or (dense) a dense layer without bias
    norm(0.001)              epsilon of a normalisation; otherwise what its framework takes if nobody says it

The name of a module wins over a word that is spelled alike. What each module of a file is says its reader, as a
mapping of names to `Part`. Nothing else is known about files here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from quantgru.activations import CANDIDATES, DENSE_ACTIVATIONS, GATES
from quantgru.errors import ModelError, QuantgruWarning
from quantgru.importers.chain import Chain, refuse
from quantgru.importers.gates import with_hard_sigmoid
from quantgru.importers.options import ImportOptions
from quantgru.model import Bidirectional, Dense, Embedding, Gru
from quantgru.model.layers import Merge, Reset

FloatArray = npt.NDArray[np.float64]

SOFTMAXES: Final = ("softmax", "log_softmax")
WORDS: Final = ("last", "final", "reverse", *(name for name in DENSE_ACTIVATIONS if name != "linear"), *SOFTMAXES)
LISTED: Final = 12  # names in one message
_WORD: Final = re.compile(r"\s*([^\s()]+)(?:\(([^()]*)\))?(?=\s|$)")


@dataclass(frozen=True, eq=False)
class Recurrent:
    """The layers of one GRU module, with sigmoid, tanh and concat. `says_reset`: whether the file says where it acts."""

    layers: tuple[Gru | Bidirectional, ...]
    says_reset: bool = True


@dataclass(frozen=True, eq=False)
class Matrix:
    """A lone matrix: a dense layer without bias [outputs, inputs] or an embedding [tokens, outputs]."""

    values: FloatArray


@dataclass(frozen=True, eq=False)
class Normalisation:
    """scale * (x - mean) / sqrt(variance + epsilon) + shift; `epsilon` is the framework's default."""

    mean: FloatArray
    variance: FloatArray
    scale: FloatArray
    shift: FloatArray
    epsilon: float


@dataclass(frozen=True)
class Unsupported:
    """A module that no chain can have, with what was found: "an LSTM layer"."""

    found: str


Part = Recurrent | Dense | Embedding | Matrix | Normalisation | Unsupported


def chain_of_parts(
    where: str, parts: Mapping[str, Part], options: ImportOptions, hard_sigmoid_slope: float = 1 / 6
) -> Chain:
    """The chain that `options.chain` says; without it, that of the only module, if this is a GRU.

    hard_sigmoid_slope  of hard_sigmoid in the file's framework: 1/6 in Keras 3 and PyTorch, 0.2 in Keras 2

    Modules that are not in the chain are named in a warning. Raises ModelError, with the modules found and an example.
    """
    return _ChainReader(where, parts, options, hard_sigmoid_slope).read()


class _ChainReader:
    def __init__(self, where: str, parts: Mapping[str, Part], options: ImportOptions, slope: float) -> None:
        self.where = where
        self.parts = parts
        self.text = options.chain
        self.slope = slope
        self.chain = Chain(options.softmax)
        self.used: set[str] = set()

    def read(self) -> Chain:
        for name, arguments in self._words():
            if name in self.parts:
                self._add_part(name, arguments)
            else:
                self._add_word(name, arguments)
        self._warn_of_unused()
        return self.chain

    def _words(self) -> list[tuple[str, list[str]]]:
        """The words of the text with their arguments."""
        if self.text is None:
            return [(self._only_gru(), [])]
        words, position = [], 0
        text = self.text.strip()
        while position < len(text):
            match = _WORD.match(text, position)
            if match is None:
                raise self._error(f"chain {_short(text)} cannot be read from {_short(text[position:].strip())} on")
            arguments = [] if match[2] is None else [argument.strip() for argument in match[2].split(",")]
            words.append((match[1], arguments))
            position = match.end()
        return words

    def _only_gru(self) -> str:
        grus = [name for name, part in self.parts.items() if isinstance(part, Recurrent)]
        if not grus:
            raise self._error("no GRU layer in it")
        if len(self.parts) > 1:
            raise self._error("holds weights only, and several modules")
        return grus[0]

    def _add_word(self, word: str, arguments: Sequence[str]) -> None:
        where = f"{self.where}: {_short(word)} of the chain"
        if word not in WORDS:
            raise self._error(f"chain names {_short(word)}, which is neither a module of it nor a word")
        if arguments:
            raise self._error(f"{_short(word)} of the chain takes nothing in brackets")
        match word:
            case "last":
                self.chain.take_last_step()
            case "final":
                self.chain.take_final_states(where)
            case "reverse":
                self.chain.add_reverse(where)
            case kind if kind in SOFTMAXES:
                self.chain.add_softmax(where, kind, None)
            case activation:
                self.chain.add_activation(where, activation)

    def _add_part(self, name: str, arguments: Sequence[str]) -> None:
        if name in self.used:
            raise self._error(f"chain names module {_short(name)} twice; give each call weights of its own")
        self.used.add(name)
        where, part = f"{self.where}: module {_short(name)}", self.parts[name]
        match part:
            case Recurrent():
                self.chain.add_recurrent(where, self._recurrent(name, part, arguments))
            case Matrix():
                self._add_matrix(where, name, part, arguments)
            case Normalisation():
                self._add_normalisation(where, part, arguments)
            case Unsupported():
                raise refuse(where, part.found)
            case _ if arguments:
                raise self._error(f"module {_short(name)} of the chain takes nothing in brackets")
            case Dense():
                self.chain.add_dense(where, part)
            case Embedding():
                self.chain.add_embedding(where, part)

    def _recurrent(self, name: str, part: Recurrent, arguments: Sequence[str]) -> tuple[Gru | Bidirectional, ...]:
        rest = list(arguments)
        merge = self._take(name, rest, get_args(Merge))
        reset = self._take(name, rest, get_args(Reset))
        if not part.says_reset and reset is None:
            raise self._error(
                f"module {_short(name)} has no bias, which would say where its reset gate acts: write {name}(after) "
                f"or {name}(before)"
            )
        if reset is not None and part.says_reset:
            raise self._error(f"module {_short(name)}: the file says where its reset gate acts: leave {reset!r} out")
        if rest and (len(rest) != 2 or rest[0] not in GATES or rest[1] not in CANDIDATES):
            raise self._error(
                f"module {_short(name)} with ({_short(', '.join(rest))}): the functions are one of {', '.join(GATES)} "
                f"for the gates, and one of {', '.join(CANDIDATES)} for the candidate"
            )
        gate, candidate = rest or ("sigmoid", "tanh")

        def with_functions(gru: Gru) -> Gru:
            changed = replace(gru, candidate=candidate, reset=reset or gru.reset)
            return with_hard_sigmoid(changed, self.slope) if gate == "hard_sigmoid" else changed

        layers = []
        for layer in part.layers:
            if isinstance(layer, Bidirectional):
                directions = {"forward": with_functions(layer.forward), "backward": with_functions(layer.backward)}
                layers.append(replace(layer, merge=merge or layer.merge, **directions))
            elif merge:
                raise self._error(f"module {_short(name)} has one direction: nothing for {merge!r} to merge")
            else:
                layers.append(with_functions(layer))
        return tuple(layers)

    def _take(self, name: str, arguments: list[str], choices: Sequence[str]) -> Any:
        """The one argument that is among `choices`, taken out of the list, or None."""
        found = [argument for argument in arguments if argument in choices]
        if len(found) > 1:
            raise self._error(f"module {_short(name)}: both {found[0]!r} and {found[1]!r}")
        for argument in found:
            arguments.remove(argument)
        return found[0] if found else None

    def _add_matrix(self, where: str, name: str, part: Matrix, arguments: Sequence[str]) -> None:
        first = not self.chain.layers
        if arguments not in ([], ["dense"], ["embedding"]) or (first and not arguments):
            rows, columns = part.values.shape
            raise self._error(
                f"module {_short(name)}, a lone matrix {rows} x {columns}: write {name}(embedding) for an embedding of "
                f"{rows} tokens, or {name}(dense) for a dense layer without bias"
            )
        if arguments == ["embedding"]:
            self.chain.add_embedding(where, Embedding(name, part.values))
        else:
            self.chain.add_dense(where, Dense(name, part.values, np.zeros(len(part.values))))

    def _add_normalisation(self, where: str, part: Normalisation, arguments: Sequence[str]) -> None:
        try:
            (epsilon,) = map(float, arguments or [part.epsilon])
        except ValueError:
            epsilon = -1.0
        if not 0 <= epsilon < 1:
            raise self._error(f"a normalisation with ({_short(', '.join(arguments))}): expected its epsilon, 0 ... 1")
        if not (part.variance + epsilon > 0).all():
            raise refuse(where, f"a variance of {part.variance.min()}", "train it again")
        if not arguments:
            self.chain.notes.append(f"{where}: epsilon is not in the file: {epsilon:g} is taken")
        scale = part.scale / np.sqrt(part.variance + epsilon)
        self.chain.add_affine(where, scale, part.shift - part.mean * scale)

    def _warn_of_unused(self) -> None:
        unused = [name for name in self.parts if name not in self.used]
        if unused:
            message = f"{self.where}: not in the chain, and left out: {_listed(unused)}"
            self.chain.notes.append(message)
            warnings.warn(message, QuantgruWarning, stacklevel=2)

    def _error(self, found: str) -> ModelError:
        modules = [f"{_short(name)} ({_kind(part)})" for name, part in self.parts.items()]
        return ModelError(
            f"{self.where}: {found}; it holds {_listed(modules) or 'no module'}; say with chain in which order they run, "
            f"with these words between: {', '.join(WORDS)}; for example chain={self._example()!r}"
        )

    def _example(self) -> str:
        """A chain of the file's modules, in the file's order."""
        usable = {name: part for name, part in self.parts.items() if not isinstance(part, Unsupported)}
        recurrent = [name for name, part in usable.items() if isinstance(part, Recurrent)]
        first = [name for name, part in usable.items() if isinstance(part, Embedding)]
        rest = [name for name in usable if name not in (*recurrent, *first)]
        words = [*first, *recurrent[:LISTED], "last", *" relu ".join(rest[:LISTED]).split()]
        return " ".join(words) if recurrent else "gru last fc"


def _kind(part: Part) -> str:
    match part:
        case Recurrent(layers):
            widths = f"{layers[0].n_inputs} → {layers[-1].n_outputs}"
            direction = "bidirectional GRU" if isinstance(layers[0], Bidirectional) else "GRU"
            return f"{direction} {widths}" + (f", {len(layers)} layers" if len(layers) > 1 else "")
        case Dense():
            return f"dense {part.n_inputs} → {part.n_outputs}"
        case Embedding():
            return f"embedding of {part.n_tokens} tokens"
        case Matrix():
            return f"matrix {part.values.shape[0]} x {part.values.shape[1]}"
        case Normalisation():
            return f"normalisation of {len(part.mean)} features"
        case Unsupported():
            return part.found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _short(text: str) -> str:
    """A name out of a file, fit for a message of one line."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
