"""Where the error of an integer model comes from, part by part."""

from quantgru.error_sources.effects import ALL_WEIGHTS, EVERYTHING, Effect, FirstStep, Sensitivity, sensitivity
from quantgru.error_sources.sources import n_sources

__all__ = ["ALL_WEIGHTS", "EVERYTHING", "Effect", "FirstStep", "Sensitivity", "n_sources", "sensitivity"]
