"""The integer model: immutable, validated, with a digest. Everything behind the quantizer reads this and decides nothing."""

from quantgru.int_model.types import IntDense, IntGru, IntLayer, IntModel, Matrix, SelfTest

__all__ = ["IntDense", "IntGru", "IntLayer", "IntModel", "Matrix", "SelfTest"]
