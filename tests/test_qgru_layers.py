"""`.qgru` files of every kind of layer: each field of theirs is known, checked, and part of the digest."""

import numpy as np
import pytest
from qgru_content import every_kind_of_layer, parent_of, saved
from zero_models import refused


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
    for other in (np.zeros_like(state), state ^ 1):
        file.arrays[name] = other
        with refused("digest"):
            file.load()


def test_directions_within_directions_end_at_the_first(file):
    both = file.header["layers"][4]
    nested = both["forward"]
    for _ in range(400):
        nested = both | {"forward": nested}
    file.header["layers"][4] = nested
    with refused("layers.4.forward: a layer of kind 'bidirectional', expected 'gru'"):
        file.load()
