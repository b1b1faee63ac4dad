"""From floats to integers: the only place that chooses a format."""

from quantgru.quantizer.dequantize import dequantize
from quantgru.quantizer.model import quantize
from quantgru.quantizer.standardisation import fold_standardisation

__all__ = ["dequantize", "fold_standardisation", "quantize"]
