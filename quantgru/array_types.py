"""Names of the array types that values have: real numbers, raw values, integers that may leave 32 bits, and marks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Int16Array = npt.NDArray[np.int16]
UInt16Array = npt.NDArray[np.uint16]
BoolArray = npt.NDArray[np.bool_]
