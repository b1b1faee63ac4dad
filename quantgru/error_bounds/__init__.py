"""A proved bound of what integers and floats can differ in, and a search for inputs that make them differ."""

from quantgru.error_bounds.bound import MOST_STEPS, ErrorBound, calibrated_range, error_bound
from quantgru.error_bounds.search import ROUNDS, FoundErrors, find_errors

__all__ = ["MOST_STEPS", "ROUNDS", "ErrorBound", "FoundErrors", "calibrated_range", "error_bound", "find_errors"]
