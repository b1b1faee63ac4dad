"""Random chains of Keras layers against their imports: expected values are Keras's own."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_models import (  # noqa: F401  # float64_layers acts by being there
    CANDIDATES,
    MERGES,
    TOLERANCE,
    difference,
    float64_layers,
    layers,
    masked,
    run,
    seeded,
    sequential,
    tokens,
)

import quantgru as qg
from quantgru.errors import QuantgruWarning


@st.composite
def arguments_of_gru(draw, **given_):
    return {
        "activation": draw(st.sampled_from(CANDIDATES)),
        "recurrent_activation": draw(st.sampled_from(["sigmoid", "hard_sigmoid"])),
        "reset_after": draw(st.booleans()),
        "use_bias": draw(st.booleans()),
        **given_,
    }


@st.composite
def recurrent_layers(draw, sequences, backwards):
    """What makes a recurrent layer of any structure that gives every step, or the last."""
    first, second = (draw(arguments_of_gru(return_sequences=sequences)) for _ in range(2))
    cells = [{k: v for k, v in cell.items() if k != "return_sequences"} for cell in (first, second)]
    back = backwards and draw(st.booleans())
    merge = draw(st.sampled_from(MERGES))
    return draw(
        st.sampled_from(
            [
                lambda: layers.GRU(4, **first, go_backwards=back),
                lambda: layers.Bidirectional(layers.GRU(3, **first), merge_mode=merge),
                lambda: layers.Bidirectional(
                    layers.GRU(3, **first, go_backwards=back),
                    merge_mode=merge,
                    backward_layer=layers.GRU(3, **second, go_backwards=not back),
                ),
                lambda: layers.RNN(layers.GRUCell(3, **cells[0]), return_sequences=sequences, go_backwards=back),
                lambda: layers.RNN(
                    [layers.GRUCell(3, **cells[0]), layers.GRUCell(2, **cells[1])], return_sequences=sequences
                ),
            ]
        )
    )


BETWEEN = {
    "nothing": list,
    "dense": lambda: [layers.Dense(3, activation="tanh")],
    "each step": lambda: [layers.TimeDistributed(layers.Dense(2, use_bias=False)), layers.Activation("relu")],
    "batch": lambda: [layers.BatchNormalization()],
    "scaled": lambda: [layers.Rescaling(0.5, 0.1), layers.Dropout(0.3)],
}
FIRST = {
    "nothing": list,
    "mask": lambda: [layers.Masking(0.25)],
    "mask and dense": lambda: [layers.Masking(0.25), layers.BatchNormalization(), layers.Dense(2)],
    "dense": lambda: [layers.Dense(4, activation="relu")],
    "scaled": lambda: [layers.Rescaling(2.0, -0.5)],
    "tokens": lambda: [layers.Embedding(6, 3)],
    "masked tokens": lambda: [layers.Embedding(6, 3, mask_zero=True)],
}


@st.composite
def chains(draw):
    """What makes the layers of a chain with one or two recurrent ones, and whether it reads tokens."""
    first = draw(st.sampled_from(sorted(FIRST)))
    n_layers = draw(st.integers(1, 2))
    makers = [FIRST[first]]
    for k in range(n_layers):
        sequences = k < n_layers - 1 or draw(st.booleans())
        recurrent = draw(recurrent_layers(sequences, backwards="mask" not in first or not sequences))
        between = [name for name in BETWEEN if sequences or name != "each step"]
        makers += [lambda make=recurrent: [make()], BETWEEN[draw(st.sampled_from(between))]]
    return makers, "tokens" in first


@settings(max_examples=35)
@given(chains(), st.integers(0, 2**32 - 1))
def test_random_chains(case, seed):
    """Structure x functions x reset x bias x masks: the outputs of all steps that are not masked."""
    makers, of_tokens = case
    source = (tokens if of_tokens else sequential)(*(part for make in makers for part in make()))
    seeded(source, scale=0.4, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", QuantgruWarning)
        model = qg.load(source)
    generator = np.random.default_rng(seed)
    keep = np.ones((4, 6), dtype=bool)
    if model.mask_value is not None:
        keep = generator.random((4, 6)) < 0.6
        keep[:, generator.integers(6)] = True
    if of_tokens:
        x = np.where(keep, generator.integers(1, 6, (4, 6)), 0)
        expected, found = run(source, x), model.run(x[..., None])
    else:
        x = masked(generator.standard_normal((4, 6, model.n_inputs)), keep, model.mask_value or 0.0)
        expected, found = run(source, x), model.run(x)
    if not model.last_step:
        expected, found = expected[keep], found[keep]
    assert difference(expected, found) <= TOLERANCE
