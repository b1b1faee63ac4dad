"""Where the error of an integer model comes from, part by part."""

from quantgru.sensitivity.effects import ALL_WEIGHTS, EVERYTHING, Effect, FirstStep, Sensitivity, sensitivity
from quantgru.sensitivity.sources import n_sources

__all__ = ["ALL_WEIGHTS", "EVERYTHING", "Effect", "FirstStep", "Sensitivity", "n_sources", "sensitivity"]
