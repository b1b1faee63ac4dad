"""The precision in which Keras computes a layer, and the weights that it quantized itself: from its dtype policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from quantgru.importers.chain import refuse
from quantgru.importers.keras_arguments import shown
from quantgru.importers.keras_entries import Entry, with_halves
from quantgru.importers.verify import TOLERANCE

# Of the largest output, by the precision in which Keras computes. Measured for stacks of 4 to 154 units: up to 6e-3 in
# float16, 5.7e-2 in bfloat16, whose rounding is eight times coarser.
TOLERANCES: Final = {"float32": TOLERANCE, "float64": TOLERANCE, "float16": 1e-2, "bfloat16": 8e-2}


def refuse_quantized(where: str, config: Mapping[str, Any]) -> None:
    """Raises ModelError for a layer after model.quantize(...), whose weights are integers and scales."""
    for part in _with_inner(config):
        mode, _, source = _policy(part).partition("_from_")
        if source:
            raise refuse(
                where,
                f"its weights were quantized by Keras ({shown(mode)})",
                "give the model as it was before quantize(); quantgru quantizes it itself",
            )


def half_precisions(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Those of 16 bits in which Keras computes layers."""
    policies = {
        _policy(part).removeprefix("mixed_")
        for entry in with_halves(entries)
        if entry.kind != "InputLayer"
        for part in _with_inner(entry.config)
    }
    return tuple(name for name in ("float16", "bfloat16") if name in policies)


def _policy(config: Mapping[str, Any]) -> str:
    """Its name: "float32", "mixed_float16", of quantized weights "int8_from_float32"; "" if it is not said."""
    policy = config.get("dtype")
    if not isinstance(policy, Mapping):
        return str(policy or "")
    arguments = policy["config"]
    if "mode" in arguments:
        return f"{arguments['mode']}_from_{arguments.get('source_name')}"
    return str(arguments.get("name", ""))


def _with_inner(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The configuration of a layer, and of the one in it: of Bidirectional, TimeDistributed, RNN."""
    layers = [config.get(key) for key in ("layer", "backward_layer", "cell")]
    inner = [layer.get("config") for layer in layers if isinstance(layer, Mapping)]
    return [config, *(part for part in inner if isinstance(part, Mapping))]
