"""How much of a model an AVR can read: its addresses have 16 bits."""

from __future__ import annotations

from typing import Final

from quantgru.int_model.cost import cost
from quantgru.int_model.int_model import IntModel
from quantgru.int_model.packing import Packing, code_array_bytes, layout, least_code_bits

MOST_ARRAY_BYTES: Final = 2**15 - 1  # a difference of two addresses is a signed number
MOST_CONSTANT_BYTES: Final = 64_000  # of 65,536: the library's tables, descriptors and strings are there, too


def largest_array_bytes(model: IntModel, packing: Packing = "auto") -> int:
    """Bytes of the largest array of constants, a matrix or an embedding's table."""
    of_embedding = [] if model.embedding is None else [model.embedding.codes.nbytes]
    return max(code_array_bytes(layout(model, least_code_bits(model, packing))) + of_embedding)


def avr_excess(model: IntModel, packing: Packing = "auto") -> str:
    """What makes the constants too large for an AVR, what is allowed, and what to do; empty if nothing does."""
    if _fits(model, packing):
        return ""
    largest, total = largest_array_bytes(model, packing), cost(model, packing).constant_bytes
    pack = "pack weights, with --packing always, or " if _fits(model, "always") else ""
    return (
        f"{total:,} bytes of constants, the largest array {largest:,}; "
        f"an AVR reads {MOST_CONSTANT_BYTES:,} in all, and {MOST_ARRAY_BYTES:,} an array: {pack}use fewer "
        "bits, with --weight-bits, or fewer units"
    )


def _fits(model: IntModel, packing: Packing) -> bool:
    largest, total = largest_array_bytes(model, packing), cost(model, packing).constant_bytes
    return largest <= MOST_ARRAY_BYTES and total <= MOST_CONSTANT_BYTES
