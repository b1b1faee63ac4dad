"""docs/sources.md, cell by cell: what its tables call supported goes all the way, what they refuse is refused by name.

For each source and structure, each of the source's functions: built and run by the framework, imported, compared with
it, quantized, and computed by simulator, oracle and C library.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")

import c_library
import numpy as np
import pytest
from support_cases import Functions, Made
from support_fixtures import FILES, WITHOUT_NODES, Fixture, fixtures, functions_of, prefixes
from support_integers import assert_integers_equal
from support_page import FUNCTIONS, PAGE, REFUSALS, STRUCTURES

import quantgru as qg
from quantgru.cli.quantize import quantize
from quantgru.importers.sources import EVERY_SOURCE
from quantgru.model import Bidirectional, Dense, Embedding, Gru, Reverse

if c_library.NO_COMPILER:
    pytest.skip(c_library.NO_COMPILER, allow_module_level=True)

ROWS = tuple(STRUCTURES["PyTorch"])
TOLERANCE = 1e-6  # of the largest output, if that is above 1

# Of each source the module and the function that make its models; what the module needs.
MAKERS = {
    "PyTorch": ("support_pytorch", "live"),
    ".pt": ("support_pytorch", "state_dict"),
    "Keras 3": ("support_keras", "live"),
    ".h5": ("support_keras", "h5"),
    ".weights.h5": ("support_keras", "weights_h5"),
    "TorchScript": ("support_torch_onnx", "torchscript"),
    "dynamo": ("support_torch_onnx", "dynamo"),
    "ONNX": ("support_onnx", "by_hand"),
    ".npz": ("support_arrays", "arrays"),
}
NEEDS = {
    "support_pytorch": {"torch": "pip install quantgru[torch]"},
    "support_keras": {
        "torch": "pip install quantgru[torch]",
        "keras": "pip install 'keras>=3.6'",
        "h5py": "pip install h5py",
    },
    "support_onnx": {"onnx": "pip install quantgru[onnx]", "onnxruntime": "pip install onnxruntime"},
    "support_torch_onnx": {"torch": "pip install quantgru[torch]", "onnxscript": "pip install onnxscript"},
    "support_refusals": {"torch": "pip install quantgru[torch]", "keras": "pip install 'keras>=3.6'"},
    "support_arrays": {"torch": "pip install quantgru[torch]", "keras": "pip install 'keras>=3.6'"},
}

# Whether a model has what a structure is about: without it, the comparison would say nothing.
SEEN_IN: dict[str, Callable[[qg.FloatModel], bool]] = {
    "every step": lambda model: not model.last_step,
    "last step": lambda model: model.last_step,
    "stack": lambda model: [type(layer) for layer in model.layers][:2] == [Gru, Gru],
    "final states of both directions": lambda model: any(
        isinstance(layer, Bidirectional) and layer.final for layer in model.layers
    ),
    "backwards": lambda model: any(isinstance(layer, Reverse) for layer in model.layers),
    "dense before": lambda model: isinstance(model.layers[0], Dense),
    "dense between": lambda model: any(isinstance(layer, Dense) for layer in model.body[1:]),
    "dense after": lambda model: bool(model.head),
    "embedding": lambda model: isinstance(model.layers[0], Embedding),
    "constant initial state": lambda model: any(gru.initial_state is not None for gru in model.grus),
    "masked steps": lambda model: model.mask_value is not None,
}
for _merge in ("concat", "sum", "mul", "ave"):
    SEEN_IN[f"bidirectional, {_merge}"] = lambda model, merge=_merge: any(
        isinstance(layer, Bidirectional) and layer.merge == merge and not layer.final for layer in model.layers
    )


def helper(name: str) -> object:
    for package, install in NEEDS[name].items():
        pytest.importorskip(package, reason=f"{package} is missing; install with: {install}")
    return import_module(name)


def cells(value: str) -> list[tuple[str, str]]:
    """Source and structure of the cells with this value, of the sources that can be made here, row by row."""
    return [(source, structure) for structure in ROWS for source in MAKERS if STRUCTURES[source][structure] == value]


@pytest.fixture(autouse=True)
def no_undefined_behaviour(capfd):
    """Fails a test in which UBSan found something: it reports on stderr, and goes on."""
    yield
    assert "runtime error" not in capfd.readouterr().err


@pytest.mark.parametrize(("source", "structure"), cells("yes"))
def test_a_supported_structure_with_every_function(source: str, structure: str, tmp_path: Path) -> None:
    module, name = MAKERS[source]
    make = getattr(helper(module), name)
    failed: list[str] = []
    for functions in functions_for(source, structure):
        try:
            assert_goes_all_the_way(make(structure, functions, tmp_path), structure, functions)
        except (AssertionError, qg.QuantgruError) as error:
            failed.append(f"{functions}: {type(error).__name__} {str(error)[:300]}")
    assert not failed, f"{len(failed)}:\n" + "\n".join(failed[:8])


def functions_for(source: str, structure: str) -> list[Functions]:
    """All that the source has; of live Keras models, of which one takes half a second, every sixth: each six rows of
    the table have all."""
    everything = list(FUNCTIONS[source].all())
    return everything[ROWS.index(structure) % 6 :: 6] if source == "Keras 3" else everything


def assert_goes_all_the_way(made: Made, structure: str, functions: Functions) -> None:
    """Each form of the model, which has what it was made with."""
    for model in made.load():
        assert SEEN_IN.get(structure, lambda _: True)(model), f"{model.layers} has no {structure}"
        assert {(gru.gate, gru.candidate, gru.reset) for gru in model.grus} == {functions[:3]}
        assert_equal_to_the_framework(made, model)


def assert_equal_to_the_framework(made: Made, model: qg.FloatModel) -> None:
    """The float model; and its integers in simulator, oracle and C."""
    assert_close(model.run(made.x, **made.run_options), made.expected)
    integers = qg.quantize(model, made.x, initial_states=made.run_options.get("initial_states"))
    assert_integers_equal(integers, made.x, **made.run_options)
    if made.goes_on:
        assert_goes_on(model, integers, made.x)


def assert_close(found: object, expected: object) -> None:
    """Arrays, or lists of them."""
    pairs = zip(found, expected, strict=True) if isinstance(expected, list) else [(found, expected)]
    for one, other in pairs:
        assert np.shape(one) == np.shape(other)
        error = np.abs(np.subtract(one, other)).max() / max(1.0, np.abs(other).max())
        assert error <= TOLERANCE, f"the import differs by {error:.1e}"


def assert_goes_on(model: qg.FloatModel, integers: qg.IntModel, x: np.ndarray) -> None:
    """A run in two parts, states handed on, is the run in one."""
    first, second = x[:, :1], x[:, 1:]
    parts = [model.run(first), model.run(second, initial_states=model.final_states(first))]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), model.run(x), rtol=0, atol=1e-12)
    begun = qg.run(integers, first)
    ended = qg.run(integers, second, initial_states=begun.final_states)
    both = np.concatenate((begun.outputs_raw, ended.outputs_raw), axis=1)
    assert np.array_equal(both, qg.run(integers, x).outputs_raw)


# ---- files of frameworks that do not run here ----------------------------------------------------------------------


def shown_by(fixture: Fixture, model: qg.FloatModel) -> set[str]:
    """The structures of a model and its record."""
    found = {structure for structure, is_in in SEEN_IN.items() if is_in(model)} | set(fixture.structures)
    return found | ({"unequal lengths", "streaming"} if looks_at_no_later_step(model) else set())


def looks_at_no_later_step(model: qg.FloatModel) -> bool:
    return not model.last_step and not any(isinstance(layer, (Bidirectional, Reverse)) for layer in model.layers)


@pytest.mark.parametrize("source", FILES)
def test_files_with_recorded_outputs(source: str) -> None:
    """They show what the page says of their source, and go all the way."""
    structures: set[str] = set()
    functions: set[Functions] = set()
    for fixture in fixtures(FILES[source]):
        made = fixture.made()
        (model,) = made.load()
        assert_equal_to_the_framework(made, model)
        whole = isinstance(made.x, np.ndarray) and not made.run_options and model.mask_value is None
        if whole and looks_at_no_later_step(model):
            assert_equal_to_the_framework(replace(made, goes_on=True), model)
            assert_equal_to_the_framework(prefixes(made), model)
        structures |= shown_by(fixture, model)
        functions |= set(map(functions_of, model.grus))
    assert structures == {row for row, cell in STRUCTURES[source].items() if cell == "yes"}
    assert functions <= set(FUNCTIONS[source].all())
    for name, part in zip(("gates", "candidates"), zip(*functions, strict=True), strict=False):
        assert set(part) == set(getattr(FUNCTIONS[source], name))
    assert {found[2:] for found in functions} == set(FUNCTIONS[source].resets)


@pytest.mark.parametrize("fixture", fixtures(WITHOUT_NODES), ids=lambda fixture: fixture.path.stem)
def test_arithmetic_in_place_of_gru_nodes(fixture: Fixture) -> None:
    made = fixture.made()
    assert_equal_to_the_framework(made, *made.load())


# ---- refusals ------------------------------------------------------------------------------------------------------


def refusal(form: object, **options: str) -> str:
    with pytest.raises(qg.ModelError) as caught:
        qg.load(form, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "structure"),
    [(source, row) for source, cells in STRUCTURES.items() for row, cell in cells.items() if cell == "no"],
)
def test_a_refused_structure_is_named(source: str, structure: str, tmp_path: Path) -> None:
    refused = helper("support_refusals").OF_CELLS[source, structure](tmp_path)
    assert refused.named in refusal(refused.form, **refused.options)


@pytest.mark.parametrize("what", REFUSALS)
def test_a_refusal_of_the_page(what: str, tmp_path: Path) -> None:
    text = refusal(helper("support_refusals").IN_LIST[what](tmp_path))
    assert REFUSALS[what].lower() in text.lower()
    assert "\n" not in text


# ---- the page itself -----------------------------------------------------------------------------------------------


def test_every_column_and_row_is_tested() -> None:
    assert STRUCTURES.keys() == FUNCTIONS.keys() == MAKERS.keys() | FILES.keys()
    refusals = helper("support_refusals")
    refused = {(source, row) for source, cells in STRUCTURES.items() for row, cell in cells.items() if cell == "no"}
    assert refused == refusals.OF_CELLS.keys()
    assert REFUSALS.keys() == refusals.IN_LIST.keys()


def test_the_count_of_the_page() -> None:
    n_models = sum(len(functions_for(source, structure)) for source, structure in cells("yes"))
    assert f"These are {n_models:,} models" in PAGE.read_text(encoding="utf-8")


def test_what_the_page_shows_exists() -> None:
    """File types, options of load and of the shell."""
    text = PAGE.read_text(encoding="utf-8")
    known = {suffix for source in EVERY_SOURCE for suffix in source.suffixes} | {".weights.h5", ".qgf"}
    assert set(re.findall(r"`(\.[a-z0-9.]+)`", text)) <= known
    loading = {option for parameter in quantize.params for option in parameter.opts}
    assert set(re.findall(r"--[a-z]+", text)) <= loading
    options = inspect.signature(qg.load).parameters
    assert set(re.findall(r"qg\.load\([^)]*?, (\w+)=", text)) <= options.keys()
