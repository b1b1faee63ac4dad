"""What is in a `.qgru` file, for tests to change and write again."""

import json
import struct
from dataclasses import replace

import oracle
import safetensors.numpy
from conversions import from_oracle
from strategies import REVERSE, BidirectionalPlan, DensePlan, EmbeddingPlan, GruPlan, Plan, random_model

from quantgru.int_model import IntModel


def every_kind_of_layer():
    """A small model with each of them, and each field of theirs."""
    gru = GruPlan(1, oracle.RESET_BEFORE, oracle.GATE_HARD_SIGMOID, oracle.CANDIDATE_RELU, 10, starts=True)
    both = BidirectionalPlan(GruPlan(1), GruPlan(1, starts=True), oracle.MERGE_SUM, final=1)
    layers = (EmbeddingPlan(2, 2), REVERSE, gru, DensePlan(1), both, DensePlan(1, oracle.TANH))
    return replace(from_oracle(random_model(Plan(layers=layers, last_step=1), seed=1)), mask_value=0.0)


class File:
    """The content of a file, for a test to change and write again."""

    def __init__(self, path):
        self.path = path
        self.data = self.path.read_bytes()
        length = struct.unpack("<Q", self.data[:8])[0]
        self.header = json.loads(json.loads(self.data[8 : 8 + length])["__metadata__"]["quantgru"])
        self.arrays = safetensors.numpy.load(self.data)

    def load(self, text=None, metadata=None):
        """Writes header (or this text for it) and arrays, and loads them."""
        metadata = metadata or {"quantgru": text or json.dumps(self.header)}
        self.path.write_bytes(safetensors.numpy.save(self.arrays, metadata=metadata))
        return IntModel.load(self.path)

    def load_bytes(self, data):
        self.path.write_bytes(data)
        return IntModel.load(self.path)


def saved(model, folder):
    model.save(folder / "m.qgru")
    return File(folder / "m.qgru")


def header_places(value, place=()):
    """Every place in the header: (key, key, index, …)."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*place, key)
        yield from header_places(inner, (*place, key))


def parent_of(header, place):
    for key in place[:-1]:
        header = header[key]
    return header
