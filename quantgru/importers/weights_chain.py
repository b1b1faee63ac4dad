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
    gru(hard_sigmoid(0.2), tanh)  the same with the slope of Keras 2, or with (1/6) that of Keras 3 and PyTorch
    gru(sum)                 how a bidirectional GRU merges its directions: concat, sum, mul or ave; otherwise concat
    gru(before)              where the reset gate acts, after or before the product, of a GRU whose file does not say it
    matrix(embedding)        a lone matrix that comes first: an embedding, or (dense) a dense layer without bias
    norm(0.001)              epsilon of a normalisation; otherwise what its framework takes if nobody says it

The name of a module wins over a word that is spelled alike. What each module of a file is says its reader, as a
mapping of names to `Part`. Nothing else is known about files here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, islice, pairwise
from typing import Any, Final, get_args

import numpy as np

from quantgru.activations import CANDIDATES, DENSE_ACTIVATIONS, GATES, Merge, Reset
from quantgru.array_types import FloatArray
from quantgru.errors import ModelError, warn
from quantgru.importers.chain import Chain, refuse
from quantgru.importers.gates import with_hard_sigmoid
from quantgru.importers.options import ImportOptions
from quantgru.model import Bidirectional, Dense, Embedding, Gru

SOFTMAXES: Final = ("softmax", "log_softmax")
WORDS: Final = ("last", "final", "reverse", *(name for name in DENSE_ACTIVATIONS if name != "linear"), *SOFTMAXES)
LISTED: Final = 160  # characters of names in one message, beside the last of them
EXAMPLE: Final = 5  # modules in an example
SLOPES: Final = {"hard_sigmoid(0.2)": 0.2, "hard_sigmoid(1/6)": 1 / 6}
_WORD: Final = re.compile(r"\s*([^\s()]+)(?:\(((?:[^()]|(?<=\w)\([^()]*\))*)\))?(?=\s|$)")


@dataclass(frozen=True, eq=False)
class Recurrent:
    """The layers of one GRU module, with sigmoid, tanh and concat.

    says_reset  whether the file says where the reset gate acts; if not, `reset` is "after" and recurrent_bias is zero
    """

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
    """A module that no chain can have, with what was found, "an LSTM layer", and what to do if anything helps."""

    found: str
    next_step: str = ""


Part = Recurrent | Dense | Embedding | Matrix | Normalisation | Unsupported


def chain_of_parts(
    where: str, parts: Mapping[str, Part], options: ImportOptions, hard_sigmoid_slope: float | None = 1 / 6
) -> Chain:
    """The chain that `options.chain` says; without it, that of the only module, if this is a GRU.

    hard_sigmoid_slope  of hard_sigmoid in the file's framework: 1/6 in Keras 3 and PyTorch, 0.2 in Keras 2;
                        None if the file does not say which it is, so that the chain must say it

    Modules that are not in the chain are named in a warning. Raises ModelError, with the modules found and an example.
    """
    reader = _ChainReader(where, parts, Chain(options.softmax), hard_sigmoid_slope)
    try:
        words = [(_only_gru(parts), [])] if options.chain is None else _words(options.chain)
        for word, arguments in words:
            reader.add(word, arguments)
    except _ChainError as error:
        raise ModelError("; ".join((f"{where}: {error}", *error.helpful(parts)))) from None
    reader.warn_of_unused()
    return reader.chain


class _ChainError(Exception):
    """What is missing or wrong in the text, where the text alone shows it."""

    def helpful(self, parts: Mapping[str, Part]) -> list[str]:
        """What to say beside it."""
        return []


class _ModulesError(_ChainError):
    """The same, where one must know what the file holds."""

    def helpful(self, parts: Mapping[str, Part]) -> list[str]:
        modules = [f"{_short(name)} ({_kind(part)})" for name, part in parts.items()]
        return [f"it holds {listed(modules) or 'no module'}"]


class _NoGruError(_ModulesError):
    """The same, where no module of the file can be used."""

    def helpful(self, parts: Mapping[str, Part]) -> list[str]:
        next_steps = [part.next_step for part in parts.values() if isinstance(part, Unsupported) and part.next_step]
        return [*super().helpful(parts), *next_steps[:1]]


class _OrderError(_ModulesError):
    """The same, where the order of the modules is wanted."""

    def helpful(self, parts: Mapping[str, Part]) -> list[str]:
        order = f"say the order in which they run, for example chain={_example(parts)!r}"
        return [*super().helpful(parts), order, f"words between them: {', '.join(WORDS)}"]


def _only_gru(parts: Mapping[str, Part]) -> str:
    grus = [name for name, part in parts.items() if isinstance(part, Recurrent)]
    if not grus:
        raise _NoGruError("no GRU layer in it")
    if len(parts) > 1:
        raise _OrderError("weights of several modules, without their order")
    return grus[0]


def _words(text: str) -> Iterator[tuple[str, list[str]]]:
    """The words with their arguments."""
    text = text.strip()
    if not text:
        raise _OrderError("the chain is empty")
    position = 0
    while position < len(text):
        match = _WORD.match(text, position)
        if match is None:
            raise _ChainError(f"the chain cannot be read from {_short(text[position:].strip())} on")
        yield match[1], [] if match[2] is None else [argument.strip() for argument in match[2].split(",")]
        position = match.end()


@dataclass
class _ChainReader:
    """Adds words to `chain`, and knows which modules were used."""

    where: str
    parts: Mapping[str, Part]
    chain: Chain
    hard_sigmoid_slope: float | None
    used: set[str] = field(default_factory=set)

    def add(self, name: str, arguments: list[str]) -> None:
        if name in self.used:
            raise _ChainError(f"the chain names module {_short(name)} twice")
        if name in self.parts:
            self.used.add(name)
            self._add_part(f"{self.where}: module {_short(name)}", name, arguments)
        elif name in WORDS:
            _want_none(name, arguments)
            self._add_word(f"{self.where}: word {_short(name)} of the chain", name)
        else:
            raise _OrderError(f"the chain names {_short(name)}, which is neither a module of it nor a word")

    def _add_word(self, where: str, word: str) -> None:
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

    def _add_part(self, where: str, name: str, arguments: list[str]) -> None:
        match self.parts[name]:
            case Recurrent() as part:
                self.chain.add_recurrent(where, _with_arguments(name, part, arguments, self.hard_sigmoid_slope))
            case Matrix(values):
                self._add_matrix(where, name, values, arguments)
            case Normalisation() as part:
                self._add_normalisation(where, name, part, arguments)
            case Dense() as part:
                _want_none(name, arguments)
                self.chain.add_dense(where, part)
            case Embedding() as part:
                _want_none(name, arguments)
                self.chain.add_embedding(where, part)
            case Unsupported(found, next_step):
                raise refuse(where, found, next_step)

    def _add_matrix(self, where: str, name: str, values: FloatArray, arguments: list[str]) -> None:
        rows, columns = values.shape
        if arguments == ["embedding"]:
            self.chain.add_embedding(where, Embedding(name, values))
        elif arguments == ["dense"] or (not arguments and self.chain.layers):  # later, it can only be dense
            self.chain.add_dense(where, Dense(name, values, np.zeros(rows)))
        else:
            raise _ChainError(
                f"module {_short(name)}, a lone matrix {rows} x {columns}: write {name}(embedding) for an embedding of "
                f"{rows} tokens, or {name}(dense) for a dense layer without bias"
            )

    def _add_normalisation(self, where: str, name: str, part: Normalisation, arguments: list[str]) -> None:
        epsilon = part.epsilon
        if arguments:
            epsilon = _number(arguments[0]) if len(arguments) == 1 else -1.0
            if not 0 <= epsilon < 1:
                raise _ChainError(f"module {_short(name)} with ({', '.join(arguments)}): expected its epsilon, 0 ... 1")
        else:
            self.chain.notes.append(f"module {_short(name)}: epsilon is not in the file: {epsilon:g} is taken")
        if not (part.variance + epsilon > 0).all():
            raise refuse(where, f"a variance of {part.variance.min():g}", "train it again")
        scale = part.scale / np.sqrt(part.variance + epsilon)
        self.chain.add_affine(where, scale, part.shift - part.mean * scale)

    def warn_of_unused(self) -> None:
        unused = [_short(name) for name in self.parts if name not in self.used]
        if unused:
            message = f"not in the chain, and left out: {listed(unused)}"
            self.chain.notes.append(message)  # without the path of a file
            warn(f"{self.where}: {message}")


def _with_arguments(name: str, part: Recurrent, arguments: list[str], slope: float | None) -> list[Gru | Bidirectional]:
    """The layers of a module as the words in its brackets say."""
    gate, candidate, merge, reset = _functions(name, arguments)
    if part.says_reset and reset:
        raise _ChainError(f"module {_short(name)}: the file says where its reset gate acts; leave {reset!r} out")
    if not part.says_reset and not reset:
        raise _ChainError(
            f"module {_short(name)} has no bias, which would say where its reset gate acts: write {name}(after) or "
            f"{name}(before)"
        )
    if merge and not all(isinstance(layer, Bidirectional) for layer in part.layers):
        raise _ChainError(f"module {_short(name)} has one direction, so nothing for {merge!r} to merge")

    if gate in SLOPES:
        gate, slope = "hard_sigmoid", SLOPES[gate]
    if gate == "hard_sigmoid" and slope is None:
        raise _ChainError(
            f"module {_short(name)}: the file does not say which Keras wrote it, and their hard_sigmoid differs; write "
            "hard_sigmoid(0.2) in the brackets if it was Keras 2, hard_sigmoid(1/6) if it was Keras 3"
        )

    def changed(layer: Gru) -> Gru:
        layer = replace(layer, candidate=candidate, reset=reset or layer.reset)
        return with_hard_sigmoid(layer, slope) if slope is not None and gate == "hard_sigmoid" else layer

    layers: list[Gru | Bidirectional] = []
    for layer in part.layers:
        if isinstance(layer, Bidirectional):
            forward, backward = changed(layer.forward), changed(layer.backward)
            layers.append(replace(layer, forward=forward, backward=backward, merge=merge or layer.merge))
        else:
            layers.append(changed(layer))
    return layers


def _functions(name: str, arguments: list[str]) -> tuple[Any, Any, Any, Any]:
    """Gate and candidate, then merge and reset or None, out of the words in a GRU's brackets."""
    merges = [argument for argument in arguments if argument in get_args(Merge)]
    resets = [argument for argument in arguments if argument in get_args(Reset)]
    functions = [argument for argument in arguments if argument not in (*merges, *resets)] or ["sigmoid", "tanh"]
    if (
        max(len(merges), len(resets)) > 1
        or len(functions) != 2
        or functions[0] not in (*GATES, *SLOPES)
        or functions[1] not in CANDIDATES
    ):
        raise _ChainError(
            f"module {_short(name)} with ({', '.join(arguments)}): in brackets may be two functions, of the gates "
            f"({', '.join(GATES)}) and of the candidate ({', '.join(CANDIDATES)}); a merge "
            f"({', '.join(get_args(Merge))}); and a reset ({', '.join(get_args(Reset))})"
        )
    return *functions, merges[0] if merges else None, resets[0] if resets else None  # type: ignore[return-value]


def _want_none(name: str, arguments: list[str]) -> None:
    if arguments:
        raise _ChainError(f"{_short(name)} of the chain takes nothing in brackets, found ({', '.join(arguments)})")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _example(parts: Mapping[str, Part]) -> str:
    """A chain of the file's modules in the file's order if their widths fit; otherwise with the GRU layers first."""
    usable = ((name, part) for name, part in parts.items() if not isinstance(part, Unsupported))
    parts = dict(islice(usable, EXAMPLE))
    grus = [name for name, part in parts.items() if isinstance(part, Recurrent)]
    if not grus:
        return "gru last fc"
    n_inputs = _widths(parts[grus[0]])[0]
    tables = [name for name, part in parts.items() if _is_table(part, n_inputs)][:1]
    order = [name for name in parts if name not in tables]
    widths = [_widths(parts[name]) for name in order]
    if any(before[1] != after[0] for before, after in pairwise(widths)):
        order = [*grus, *(name for name in order if name not in grus)]
    words = [f"{name}(embedding)" if isinstance(parts[name], Matrix) else name for name in tables]
    words += [f"{order[0]}(dense)" if not words and isinstance(parts[order[0]], Matrix) else order[0], *order[1:]]
    last = words.index(max(grus, key=order.index)) + 1
    return " ".join([*words[:last], "last", *words[last:]] if words[last:] else words)


def _is_table(part: Part, n_outputs: int) -> bool:
    """Whether a part may be an embedding with so many outputs."""
    return isinstance(part, Embedding) or (isinstance(part, Matrix) and part.values.shape[1] == n_outputs)


def _widths(part: Part) -> tuple[int, int]:
    """Inputs and outputs."""
    match part:
        case Recurrent(layers):
            return layers[0].n_inputs, layers[-1].n_outputs
        case Dense():
            return part.n_inputs, part.n_outputs
        case Matrix(values):
            return values.shape[1], values.shape[0]
        case Normalisation(mean):
            return len(mean), len(mean)
    return 0, 0


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


def listed(names: Sequence[str]) -> str:
    """As many names as a message of one line has room for, and the number of the others."""
    lengths = accumulate(len(name) + 2 for name in names)
    shown = sum(length <= LISTED for length in lengths) or 1
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _short(text: str) -> str:
    """A name out of a file, fit for a message of one line."""
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
