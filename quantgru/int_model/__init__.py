"""The integer model: immutable, validated, with a digest. What comes after it reads and decides nothing."""

from quantgru.int_model.types import IntDense, IntGru, IntLayer, IntModel, Matrix, SelfTest

__all__ = ["IntDense", "IntGru", "IntLayer", "IntModel", "Matrix", "SelfTest"]
