"""The integer model: immutable, validated, with a digest. What comes after it reads and decides nothing."""

from quantgru.int_model.int_model import IntModel, SelfTest, require_int_model
from quantgru.int_model.layers import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    Matrix,
    output_bits,
)
from quantgru.structure import Reverse

__all__ = [
    "IntBidirectional",
    "IntDense",
    "IntEmbedding",
    "IntGru",
    "IntLayer",
    "IntModel",
    "Matrix",
    "Reverse",
    "SelfTest",
    "output_bits",
    "require_int_model",
]
