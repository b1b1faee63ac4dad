"""The example of firmware/BLOB.md: the model of SPEC.md, chapter 8, and the lines that show its blob."""

import oracle

MODEL = oracle.Model(
    (12, 12),
    0,
    (
        oracle.Gru(
            oracle.RESET_AFTER,
            oracle.Matrix(((100, -50), (20, 30), (-128, 127)), (16384, 24576, 32767), (3, 2, 4), 0),
            oracle.Matrix(((64,), (-64,), (127,)), (20000, 16384, 30000), (5, 3, 4), 1),
            (1000, -2000, 300),
            (-150,),
            oracle.GATE_SIGMOID,
            oracle.CANDIDATE_TANH,
            15,
        ),
        oracle.Dense(oracle.RELU, 15, oracle.Matrix(((100,), (-100,)), (16384, 16384), (4, 4), 0), (7, 7)),
    ),
)
