"""The float model: what an importer makes of a framework's model, and the meaning that integers are held to."""

from quantgru.model.layers import Dense, FloatModel, Gate, Gru, Layer

__all__ = ["Dense", "FloatModel", "Gate", "Gru", "Layer"]
