"""From the atom that is a model's output back to its input, and from there to layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

import numpy as np

from quantgru.importers.chain import Chain, refuse
from quantgru.importers.onnx_atoms import (
    Atom,
    Both,
    Cell,
    Embedded,
    Function,
    Input,
    Linear,
    Recurrent,
    Reversed,
    Step,
    Vector,
    describe,
)
from quantgru.importers.onnx_reader import Reader, Value
from quantgru.importers.onnx_sizes import Symbol
from quantgru.importers.onnx_tensors import Tensor
from quantgru.model import Bidirectional, Dense, Embedding

_ORDER: Final = ("batch", "steps", "features")  # of run()
_ONE_OUTPUT: Final = "export the model with one of them"


def add_layers(reader: Reader, outputs: Mapping[str, Value], chain: Chain) -> None:
    """Adds what the outputs are to the chain. Raises ModelError where they are not one chain of layers."""
    (name, output), states = _main_output(reader, outputs)
    where = f"output {name[:60]!r}"
    path = _path(reader, where, reader.settle(where, output.vectors))
    layers = [layer for part in path for layer in _recurrent(part)]
    for state, of in states.items():
        if not all(layer in layers for layer in of):
            raise refuse(f"outputs {name[:60]!r} and {state[:60]!r}", "several results", _ONE_OUTPUT)
        chain.notes.append(_note_states(state, [layers.index(layer) for layer in of], len(layers)))
    for part in _without_selections(reader, path[1:]):
        _add(reader, chain, part)
    if not any(_recurrent(part) for part in path):
        return  # what has no GRU layer is refused as every such model is
    roles = [reader.role(symbol) or "batch" for symbol in output.symbols]
    if roles.count("batch") > 1 or roles.count("steps") > 1:
        raise refuse(where, f"of shape {output}, which has more free axes than steps and batch")
    if not reader.finder.cells.alone.isdisjoint(layers):
        if reader.has_steps:
            raise refuse(where, "a GRU layer that computes one step, and another axis of steps")
        result = _layers_of_states(output, reader.finder.cells.alone)
        _want_states_back(where, layers, [*states.values(), *([result] if result else [])])
        chain.notes.append("the file computes one step, from states to states; run(x) does so for every step of x")
    elif "steps" not in roles:  # taken, or left out since it is a single one
        chain.take_last_step()
    elif chain.last_step:
        raise refuse(where, "a single step, spread over all steps")
    _check_inputs(reader, path, chain)


def _main_output(reader: Reader, outputs: Mapping[str, Value]) -> tuple[tuple[str, Tensor], dict[str, list[Recurrent]]]:
    """The output that is not just the final states of layers; and the layers of those that are, by their names."""
    tensors: dict[str, Tensor] = {}
    for name, value in outputs.items():
        if not isinstance(value, Tensor) or not value.n_features:
            raise refuse(f"output {name[:60]!r}", "a constant")
        tensors[name] = value
    if len(tensors) == 1:
        return next(iter(tensors.items())), {}
    alone = reader.finder.cells.alone
    states = {name: of for name, value in tensors.items() if (of := _layers_of_states(value, alone)) is not None}
    results = [(name, value) for name, value in tensors.items() if name not in states]
    if not results and alone:  # the state is the result, too
        name, value = next(iter(tensors.items()))
        results, states = [(name, value)], {other: of for other, of in states.items() if other != name}
    if len(results) != 1:
        names = " and ".join(repr(name[:60]) for name in [name for name, _ in results] or list(tensors)[:4])
        raise refuse(f"outputs {names}", "several results", _ONE_OUTPUT)
    return results[0], states


def _layers_of_states(value: Tensor, alone: Set[Recurrent]) -> list[Recurrent] | None:
    """The layers whose final states a tensor consists of, as they are; None if it is something else."""
    found = []
    for vector in value.vectors:
        atom = vector.only  # with neither a matrix nor a bias
        layer = atom.of if isinstance(atom, Step) and atom.is_last else atom
        if not isinstance(layer, Recurrent) or (layer is atom and layer not in alone):
            return None
        found.append(layer)
    return found


def _note_states(name: str, numbers: Sequence[int], n_layers: int) -> str:
    every = list(numbers) == list(range(n_layers))
    entries = "" if every else f"entry {', then '.join(map(str, numbers))} of "
    return f"output {name[:60]!r} of the file is {entries}what model.final_states(x) gives"


def _want_states_back(where: str, layers: Sequence[Recurrent], outputs: Sequence[Sequence[Recurrent]]) -> None:
    """Raises ModelError where a graph of one step does not give the states that it takes, as it takes them."""
    taken = {layer.given for layer in layers}
    if len(taken) < len(layers) or not {layer for of in outputs for layer in of}.issuperset(layers):
        found = "a single step that does not take and give a state of its own for each GRU layer"
        raise refuse(where, found, "export it with the state of each layer as an input and, unchanged, as an output")
    for of in outputs:
        given = [layer.given for layer in of if layer.given]
        one_input = len(of) > 1 and len({entry.name for entry in given}) == 1
        if one_input and [entry.entry for entry in given] != list(range(len(of))):
            found = f"a single step that gives the states {', '.join(map(str, given))[:80]} in this order"
            raise refuse(where, found, "export it with its states in the same order as an input and as an output")


def _path(reader: Reader, where: str, output: Atom) -> list[Atom]:
    """From the input to the output."""
    path = [output]
    while not isinstance(path[-1], Input):
        atom = path[-1]
        match atom:
            case Function():
                path.append(reader.settle(atom.where, [atom.of]))
            case Linear():
                path.append(atom.atom)
            case Recurrent() | Reversed() | Step() | Embedded():
                path.append(atom.of)
            case Both():
                path.append(atom.forward.of)
            case Cell():
                raise refuse(
                    atom.where,
                    f"a GRU written out for {atom.number} steps, though the number of steps is "
                    f"{atom.axis.size or 'free'}",
                    "export it for a fixed number of steps, or load the Keras model itself, a .keras file",
                )
            case _:
                raise refuse(where, f"depends on {describe(atom)}")
    return path[::-1]


def _without_selections(reader: Reader, path: Sequence[Atom]) -> list[Atom]:
    """The layers, without those that select, reorder or scale features for a GRU layer: its weights do that."""
    layers: list[Atom] = []
    for atom in path:
        before = layers[-1] if layers else None
        if not isinstance(before, Linear) or not _selects(before):
            layers.append(atom)
        elif isinstance(atom, Both):
            forward, backward = (_after(reader, before.of, part) for part in (atom.forward, atom.backward))
            layers[-1] = replace(atom, forward=forward, backward=backward)
        elif isinstance(atom, Recurrent):
            layers[-1] = _after(reader, before.of, atom)
        else:
            layers.append(atom)
    return layers


def _selects(atom: Linear) -> bool:
    coefficient = atom.of.terms[atom.atom]
    return coefficient.ndim == 2 and bool((np.count_nonzero(coefficient, axis=1) <= 1).all())


def _after(reader: Reader, vector: Vector, layer: Recurrent) -> Recurrent:
    """The layer on matrix @ x + bias, as one on x."""
    (matrix,) = vector.terms.values()
    weights = layer.gru.input_weights
    reader.algebra.spend(3 * layer.width * matrix.shape[1])
    gru = replace(layer.gru, input_weights=weights @ matrix, bias=layer.gru.bias + weights @ vector.bias)
    return replace(layer, gru=gru)


def _add(reader: Reader, chain: Chain, atom: Atom) -> None:
    match atom:
        case Embedded():
            chain.add_embedding(atom.where, Embedding("embedding", atom.table))
        case Linear():
            _add_linear(chain, atom)
        case Function():
            if atom.name.endswith("softmax"):
                chain.add_softmax(atom.where, atom.name, None)
            elif atom.name.startswith("hard_"):
                raise refuse(atom.where, f"{atom.name} outside of a GRU layer", "train with relu or tanh in its place")
            else:
                chain.add_activation(atom.where, atom.name)
        case Recurrent():
            chain.add_recurrent(atom.where, [atom.gru])
        case Both():
            _add_both(chain, atom)
        case Reversed():
            chain.add_reverse(atom.where)
        case Step():
            _add_step(reader, chain, atom)


def _add_linear(chain: Chain, atom: Linear) -> None:
    coefficient = atom.of.terms[atom.atom]
    if coefficient.ndim < 2:
        chain.add_affine(atom.where, coefficient, atom.of.bias)
    else:
        name = f"dense_{sum(isinstance(layer, Dense) for layer in chain.layers) + 1}"
        chain.add_dense(atom.where, Dense(name, coefficient, atom.of.bias))


def _add_both(chain: Chain, atom: Both) -> None:
    layers = atom.forward.gru, atom.backward.gru
    name = layers[0].name.removesuffix(".forward")
    chain.add_recurrent(atom.forward.where, [Bidirectional(name, *layers, atom.merge)])
    if atom.final:
        chain.take_final_states(atom.forward.where)


def _add_step(reader: Reader, chain: Chain, atom: Step) -> None:
    if reader.role(atom.axis) != "steps":
        raise refuse(atom.where, f"takes entry {atom.index} along {atom.axis}, which is not the axis of steps")
    if atom.is_first:
        chain.add_reverse(atom.where)
    elif not atom.is_last:
        raise refuse(atom.where, f"takes step {atom.index}", "take the last one, or all")
    chain.take_last_step()


def _check_inputs(reader: Reader, path: Sequence[Atom], chain: Chain) -> None:
    """Says which inputs of the file are arguments of run(). Raises ModelError where an input is used in two ways."""
    source = path[0]
    assert isinstance(source, Input)
    _note_order(reader, source.name, chain)
    layers = [layer for atom in path for layer in _recurrent(atom)]
    lengths = {reader.lengths.get(layer) for layer in layers}
    name = next(iter(lengths)) if len(lengths) == 1 else None
    tokens = {source.name} if any(isinstance(atom, Embedded) for atom in path) else set()
    if len(lengths) > 1:
        raise refuse(layers[0].where, "lengths for some GRU layers, and none or others for the rest")
    if name is not None:
        _refuse_cuts(reader, name)
        chain.notes.append(f"input {name[:60]!r} of the file is the lengths of sequences, which the data have here")
    if reader.tokens - {*tokens, name}:
        raise refuse(f"input {min(reader.tokens)[:60]!r}", "made whole numbers, and is no token number")
    given = [layer.given for layer in layers]
    if {entry.name for entry in given if entry} & {source.name, name}:
        raise refuse(layers[0].where, "an initial state that is also something else", "give it an input of its own")
    if any(given):
        names = ", ".join(str(entry) for entry in given)
        chain.notes.append(f"initial states, run(x, initial_states=...), are inputs of the file: {names}")


def _note_order(reader: Reader, name: str, chain: Chain) -> None:
    """Says where the axes of the file's input are in another order than run() takes; warns where features move.

    Sizes alone need not show it: with as many steps as features, run() takes either order.
    """
    dims = next(entry.dims for entry in reader.graph.inputs if entry.name == name)
    symbols = [Symbol(name, i, dim) for i, dim in enumerate(dims)]
    features = reader.features.get(name)
    found = [
        "features" if features and symbol.axis == features.axis else reader.role(symbol) or "1" * (symbol.size == 1)
        for symbol in symbols
    ]
    found = [role or "batch" for role in found]
    order = [role for role in found if role != "1"]
    if order == sorted(order, key=_ORDER.index):
        return
    taken = _ORDER if features else _ORDER[:2]
    note = f"input {name[:60]!r} is [{', '.join(found)}] in the file; this model takes [{', '.join(taken)}]"
    notes = reader.warnings if features and order[-1] != "features" else chain.notes
    notes.append(note)


def _recurrent(atom: Atom) -> list[Recurrent]:
    if isinstance(atom, Both):
        return [atom.forward, atom.backward]
    return [atom] if isinstance(atom, Recurrent) else []


def _refuse_cuts(reader: Reader, name: str) -> None:
    """With lengths, the last entry along the steps is the last step of the longest sequence only."""
    for where, axis in reader.cuts:
        if reader.role(axis) == "steps":
            raise refuse(
                where,
                f"takes or turns steps, padding included, of sequences whose lengths are input {name[:60]!r}",
                "use the final states, Y_h, which are those at each length",
            )
