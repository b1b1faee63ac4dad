"""The fixed-point simulator: what a device computes, bit for bit, over whole data sets."""

from quantgru.simulator.batch import SimulationResult, Trace, check_values, run, run_check, simulate
from quantgru.simulator.log_replay import Replay, replay
from quantgru.simulator.logs import InputLog, read_logs
from quantgru.simulator.program import GruTrace
from quantgru.simulator.states import GruState
from quantgru.simulator.stream import Stream

__all__ = [
    "GruState",
    "GruTrace",
    "InputLog",
    "Replay",
    "SimulationResult",
    "Stream",
    "Trace",
    "check_values",
    "read_logs",
    "replay",
    "run",
    "run_check",
    "simulate",
]
