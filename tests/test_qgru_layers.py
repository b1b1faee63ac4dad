"""`.qgru` files of every kind of layer: each field of theirs is known, checked, and part of the digest."""

from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
from qgru_content import every_kind_of_layer, parent_of, saved
from zero_models import (
    model_of,
    refused,
    small_model,
    zero_bidirectional,
    zero_dense,
    zero_embedding,
    zero_gru,
)

from quantgru.structure import Reverse


@pytest.fixture
def file(tmp_path):
    return saved(every_kind_of_layer(), tmp_path)


@pytest.mark.parametrize(
    "place", [("layers", i) for i in range(6)] + [("layers", 4, "forward"), ("layers", 4, "backward")]
)
def test_unknown_fields_of_every_kind_of_layer_are_refused(file, place):
    parent_of(file.header, (*place, "extra"))["extra"] = 0
    with refused("unknown field 'extra'"):
        file.load()


@pytest.mark.parametrize(
    ("place", "value", "pattern"),
    [
        (("mask_value",), True, "mask_value is True"),
        (("mask_value",), float("nan"), "mask value nan"),
        (("layers", 0, "kind"), "reverse", "unknown array"),
        (("layers", 1, "kind"), "embedding", "codes"),
        (("layers", 2, "state"), "s16f32", "state 's16f32'"),
        (("layers", 2, "state"), "u16f10", "state 'u16f10'"),
        (("layers", 2, "state"), "s16f9", "digest"),
        (("layers", 2, "candidate"), "linear", "digest"),
        (("layers", 2, "candidate"), "softsign", "candidate 'softsign'"),
        (("layers", 2, "gate"), "tanh", "gate 'tanh'"),
        (("layers", 4, "merge"), "ave", "digest"),
        (("layers", 4, "merge"), "max", "merge 'max'"),
        (("layers", 4, "final"), False, "digest"),
        (("layers", 4, "final"), 1, "final is 1"),
        (("layers", 4, "forward", "kind"), "dense", "kind 'dense', expected 'gru'"),
        (("layers", 4, "forward"), {"kind": "reverse", "name": "r"}, "kind 'reverse', expected 'gru'"),
        (("last_step",), False, "a single vector"),
    ],
)
def test_changed_fields_of_every_kind_of_layer_are_refused(file, place, value, pattern):
    parent_of(file.header, place)[place[-1]] = value
    with refused(pattern):
        file.load()


def test_a_missing_or_changed_initial_state_is_refused(file):
    name = "layers.4.backward.initial_state"
    state = file.arrays.pop(name)
    with refused("digest"):
        file.load()
    file.arrays[name] = state ^ 1
    with refused("digest"):
        file.load()


def test_an_initial_state_of_zeros_is_left_out(tmp_path):
    file = saved(small_model(), tmp_path)
    file.arrays["layers.0.initial_state"] = np.zeros(2, np.int16)
    with refused("layers.0: an initial state of zeros, which files leave out; the file is damaged"):
        file.load()


GRU = zero_gru(n_inputs=1)


@pytest.mark.parametrize(
    ("layers", "added"),
    [
        ((GRU, GRU, zero_dense()), False),
        ((replace(GRU, gate="hard_sigmoid"),), True),
        ((replace(GRU, candidate="relu"),), True),
        ((replace(GRU, state_fraction_bits=14),), True),
        ((replace(GRU, initial_state=np.ones(1, np.int16)),), True),
        ((zero_embedding(outputs=1), GRU), True),
        ((Reverse(), GRU), True),
        ((zero_bidirectional("sum", n_inputs=1),), True),
        ((zero_dense(), GRU), True),
        ((GRU, zero_dense(), GRU), True),
    ],
)
def test_what_version_1_1_added_is_not_in_a_file_of_1_0(layers, added, tmp_path):
    file = saved(model_of(*layers, n_inputs=1), tmp_path)
    file.header["spec"] = [1, 0]
    with refused("contract 1.0, which does not have all that it uses") if added else nullcontext():
        assert file.load().digest == model_of(*layers, n_inputs=1).digest


def test_directions_within_directions_end_at_the_first(file):
    both = file.header["layers"][4]
    nested = both["forward"]
    for _ in range(400):
        nested = both | {"forward": nested}
    file.header["layers"][4] = nested
    with refused("layers.4.forward: a layer of kind 'bidirectional', expected 'gru'"):
        file.load()
