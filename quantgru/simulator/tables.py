"""What sigmoid and tanh of a device give, over all arguments at once."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np

from quantgru.array_types import IntArray
from quantgru.simulator import kernels


@cache
def function_values(name: Literal["sigmoid", "tanh"]) -> IntArray:
    """With 15 fraction bits, for 0 ... LIMIT, which have 14 [R7, R8]."""
    function = {"sigmoid": kernels.sigmoid, "tanh": kernels.tanh}[name]
    values = np.array([function(a) for a in range(kernels.LIMIT + 1)], np.int64)
    values.setflags(write=False)  # all who ask share it
    return values
