"""The fixed-point simulator: what a device computes, bit for bit, over whole data sets."""

from quantgru.simulator.batch import SimulationResult, Trace, check_values, run, simulate
from quantgru.simulator.stream import Stream

__all__ = ["SimulationResult", "Stream", "Trace", "check_values", "run", "simulate"]
