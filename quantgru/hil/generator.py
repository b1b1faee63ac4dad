"""Raw inputs that a board can make itself (firmware/PROTOCOL.md, SEED)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Generator:
    """Numbers spread evenly over 16 bits, shifted to the right: -2^(15 - shift) ... 2^(15 - shift) - 1.

    Value k is hashed from seed + (k + 1) 0x9e3779b9, the multiples of 2^32 over the golden ratio, by the finalizer of
    MurmurHash3 (A. Appleby): any part of a sequence can be made without the part before it.
    """

    seed: int  # 0 ... 2^32 - 1
    shift: int  # 0 ... 15

    def inputs(self, n_steps: int, n_inputs: int) -> npt.NDArray[np.int16]:
        """The first steps of a sequence, raw, int16 [steps, inputs]."""
        index = np.arange(1, n_steps * n_inputs + 1, dtype=np.uint32)
        z = np.uint32(self.seed) + index * np.uint32(0x9E3779B9)
        z = (z ^ (z >> np.uint32(16))) * np.uint32(0x85EBCA6B)
        z = (z ^ (z >> np.uint32(13))) * np.uint32(0xC2B2AE35)
        return ((z >> np.uint32(16)).astype(np.int16) >> self.shift).reshape(n_steps, n_inputs)
