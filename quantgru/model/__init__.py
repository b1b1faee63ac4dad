"""The float model: what an importer makes of a framework's model, and the meaning that integers are held to."""

from quantgru.model.float_model import FloatModel
from quantgru.model.layers import Bidirectional, Dense, Embedding, Gate, Gru, Layer
from quantgru.structure import Reverse

__all__ = ["Bidirectional", "Dense", "Embedding", "FloatModel", "Gate", "Gru", "Layer", "Reverse"]
