"""What sigmoid and tanh of a device give, over all arguments at once."""

from __future__ import annotations

from functools import cache
from typing import Final, Literal

import numpy as np

from quantgru.array_types import IntArray
from quantgru.simulator import kernels

LAST_ARGUMENT: Final = 12 * 2**14 - 1  # LIMIT of R6: beyond it, R7 and R8 are constant


@cache
def function_values(name: Literal["sigmoid", "tanh"]) -> IntArray:
    """With 15 fraction bits, for 0 ... LAST_ARGUMENT, which have 14 [R7, R8]."""
    function = {"sigmoid": kernels.sigmoid, "tanh": kernels.tanh}[name]
    values = np.array([function(a) for a in range(LAST_ARGUMENT + 1)], np.int64)
    values.setflags(write=False)  # all who ask share it
    return values
