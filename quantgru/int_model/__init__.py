"""The integer model: immutable, validated, with a digest. What comes after it reads and decides nothing."""

from quantgru.int_model.int_model import IntModel, SelfTest
from quantgru.int_model.layers import (
    IntBidirectional,
    IntDense,
    IntEmbedding,
    IntGru,
    IntLayer,
    IntReverse,
    Matrix,
    output_bits,
)

__all__ = [
    "IntBidirectional",
    "IntDense",
    "IntEmbedding",
    "IntGru",
    "IntLayer",
    "IntModel",
    "IntReverse",
    "Matrix",
    "SelfTest",
    "output_bits",
]
