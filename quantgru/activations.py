"""The table behind sigmoid and tanh on the device (SPEC.md R6), and the functions that it stands for.

`tools/activation_table.py` derives the table, `tools/bench_table.py` measures it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

# t(x) = tanh(x / 2), unsigned, 16 fraction bits: x = 0, 1/32 ... 5, then 5 1/8 ... 12.
# fmt: off
HALF_TANH: Final = (
    0, 1024, 2047, 3070, 4091, 5110, 6126, 7140, 8150, 9156, 10158, 11155, 12146, 13132, 14112, 15085,
    16051, 17010, 17961, 18904, 19839, 20765, 21681, 22588, 23486, 24373, 25251, 26117, 26973, 27818, 28652, 29475,
    30286, 31086, 31873, 32649, 33413, 34165, 34904, 35632, 36347, 37050, 37740, 38419, 39085, 39738, 40380, 41009,
    41626, 42231, 42824, 43404, 43973, 44530, 45076, 45610, 46132, 46643, 47143, 47631, 48109, 48576, 49032, 49477,
    49912, 50337, 50752, 51157, 51552, 51938, 52314, 52681, 53039, 53388, 53728, 54059, 54382, 54697, 55004, 55303,
    55594, 55877, 56153, 56421, 56683, 56937, 57185, 57426, 57661, 57889, 58111, 58327, 58537, 58741, 58939, 59132,
    59320, 59503, 59680, 59852, 60020, 60183, 60341, 60494, 60644, 60789, 60930, 61067, 61200, 61329, 61454, 61576,
    61694, 61809, 61921, 62029, 62134, 62236, 62335, 62431, 62524, 62615, 62703, 62788, 62871, 62952, 63030, 63105,
    63179, 63250, 63319, 63386, 63451, 63514, 63576, 63635, 63693, 63749, 63803, 63856, 63907, 63956, 64004, 64051,
    64096, 64140, 64182, 64224, 64264, 64302, 64340, 64376, 64412, 64446, 64479, 64512, 64543, 64573, 64603, 64631,
    64660, 64762, 64852, 64932, 65003, 65065, 65121, 65169, 65212, 65250, 65284, 65313, 65339, 65362, 65383, 65401,
    65417, 65431, 65443, 65454, 65464, 65472, 65480, 65486, 65492, 65497, 65502, 65506, 65509, 65512, 65515, 65518,
    65520, 65522, 65523, 65525, 65526, 65527, 65528, 65529, 65530, 65531, 65531, 65532, 65532, 65533, 65533, 65534,
    65534, 65534, 65534, 65534, 65535, 65535, 65535, 65535, 65535,
)
# fmt: on


def sigmoid(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x)), without overflow for large negative x."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * x))


def relu(x: FloatArray) -> FloatArray:
    return np.maximum(x, 0.0)


def linear(x: FloatArray) -> FloatArray:
    return x


def tanh(x: FloatArray) -> FloatArray:
    return np.asarray(np.tanh(x))


# The real functions that a dense layer can have, by the name that models and files use.
DENSE_ACTIVATIONS: Final[dict[str, Callable[[FloatArray], FloatArray]]] = {
    "linear": linear,
    "relu": relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
}
