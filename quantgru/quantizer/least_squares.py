"""A step towards the least squares of an error that depends on integers and on real numbers."""

from __future__ import annotations

import numpy as np

from quantgru.array_types import FloatArray, IntArray


def best_step(
    curvature: FloatArray, slope: FloatArray, codes: IntArray, lowest: IntArray, highest: IntArray
) -> FloatArray:
    """A step d that makes slope . d + d . curvature d / 2 small: changes of codes, then of the other parameters.

    Codes change by one at a time, within their ends, each time the one that gains most with the other parameters at
    their best, until none gains. curvature [parameters, parameters] is positive definite; slope [parameters].
    """
    n = len(codes)
    # With the others at their best, codes alone are left: a Schur complement.
    coupling = np.linalg.solve(curvature[n:, n:], np.column_stack((curvature[n:, :n], slope[n:])))
    reduced = curvature[:n, :n] - curvature[:n, n:] @ coupling[:, :n]
    left = slope[:n] - curvature[:n, n:] @ coupling[:, n]
    variances = np.diag(reduced)
    found = codes.copy()
    while True:
        direction = np.where(left < 0, 1, -1)
        allowed = (found + direction >= lowest) & (found + direction <= highest)
        gains = np.where(allowed, np.abs(left) - variances / 2, 0.0)
        best = int(gains.argmax())
        if not gains[best] > 1e-12 * variances[best]:
            break
        found[best] += direction[best]
        left += reduced[:, best] * direction[best]
    change = found - codes
    return np.concatenate((change, -(coupling[:, :n] @ change + coupling[:, n])))
