"""The ways in which people write a GRU down, as data. `arrays` brings any of them into the canonical cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from quantgru.activations import Reset
from quantgru.importers.array_layout import FACTORS, Array, Sizes


@dataclass(frozen=True)
class Convention:
    """name      what a user calls it
    source    where it is written down
    formula   one step, in its own names; h is the state before it, h' the one after it
    reset     whether the reset gate acts after the product with U_n, or before
    update    whether its update gate keeps the state (h' = z h + (1 - z) n), or replaces it (h' = (1 - z) h + z n)
    arrays    that it has
    optional  arrays that it may have: each group whole, or not at all
    """

    name: str
    source: str
    formula: tuple[str, ...]
    reset: Reset
    update: Literal["keeps", "replaces"]
    arrays: tuple[Array, ...]
    optional: tuple[tuple[Array, ...], ...] = ()

    @property
    def all_arrays(self) -> tuple[Array, ...]:
        return (*self.arrays, *(array for group in self.optional for array in group))

    @property
    def expected(self) -> str:
        """Its arrays with their shapes."""
        text = _listed(self.arrays)
        for group in self.optional:
            text += f"; optional {_listed(group)}" + (" (all or none)" if len(group) > 1 else "")
        return text

    def blocks_of(self, array: Array) -> str:
        """What the array is made of, in blocks W, U, b, c of the canonical cell, rows of blocks after each other.

        >>> CONVENTIONS["tensorflow1"].blocks_of(Array("gates/kernel", "x h", "r z"))
        'W[r]ᵀ, W[z]ᵀ; U[r]ᵀ, U[z]ᵀ'
        """
        rows: dict[int, list[str]] = {}
        for block in array.blocks(Sizes(1, 1)):
            same = []
            for gate in block.gates:
                sign = "-" if gate == "z" and self.update == "replaces" else ""
                same.append(f"{sign}{FACTORS[block.factor]}[{gate}]{'ᵀ' if block.columns else ''}")
            row = block.where[0].start if len(block.where) > 1 else 0
            rows.setdefault(row, []).append(" = ".join(same))
        return "; ".join(", ".join(row) for row in rows.values())


def _listed(arrays: tuple[Array, ...]) -> str:
    return ", ".join(f"{array.name} {array.shape_text}" for array in arrays)


def _gates(weight: str, state_weight: str, bias: str, *, columns: bool = False) -> tuple[tuple[Array, ...], ...]:
    """Weights and biases of a convention with three arrays for each gate: names of z, r, n by blanks."""
    weights, biases = [], []
    for gate, w, u, b in zip("zrn", weight.split(), state_weight.split(), bias.split(), strict=True):
        weights += [Array(w, "x", gate), Array(u, "h", gate)] if columns else [Array(w, gate, "x"), Array(u, gate, "h")]
        biases.append(Array(b, f"{gate}b"))
    return tuple(weights), tuple(biases)


_PLAIN_WEIGHTS, _PLAIN_BIASES = _gates("W_z W_r W", "U_z U_r U", "b_z b_r b")
_H_WEIGHTS, _H_BIASES = _gates("W_z W_r W_h", "U_z U_r U_h", "b_z b_r b_h")
_D2L_WEIGHTS, _D2L_BIASES = _gates("W_xz W_xr W_xh", "W_hz W_hr W_hh", "b_z b_r b_h", columns=True)
_CUDNN_WEIGHTS, _CUDNN_BIASES = _gates("W_i W_r W_h", "R_i R_r R_h", "b_Wi b_Wr b_Wh")

_KERAS_WEIGHTS: Final = (Array("kernel", "x", "z r n"), Array("recurrent_kernel", "h", "z r n"))
_ONNX_WEIGHTS: Final = (Array("W", "z r n", "x"), Array("R", "z r n", "h"))
_ONNX_BIAS: Final = (Array("B", "zb rb nb zc rc nc"),)

_TABLE: Final = (
    Convention(
        "cho2014",
        "Cho et al. 2014, arXiv 1406.1078v3, section 2.3; biases are left out there",
        (
            "r = σ(W_r x + U_r h)",
            "z = σ(W_z x + U_z h)",
            "h~ = tanh(W x + U (r ∘ h))",
            "h' = z ∘ h + (1 - z) ∘ h~",
        ),
        "before",
        "keeps",
        _PLAIN_WEIGHTS,
        (_PLAIN_BIASES,),
    ),
    Convention(
        "chung2014",
        "Chung et al. 2014, arXiv 1412.3555, section 3.2; without biases there",
        (
            "z = σ(W_z x + U_z h)",
            "r = σ(W_r x + U_r h)",
            "h~ = tanh(W x + U (r ∘ h))",
            "h' = (1 - z) ∘ h + z ∘ h~",
        ),
        "before",
        "replaces",
        _PLAIN_WEIGHTS,
        (_PLAIN_BIASES,),
    ),
    Convention(
        "bahdanau2015",
        "Bahdanau et al. 2015, arXiv 1409.0473, appendix A; biases are left out there; x is the embedded word; in the "
        "decoder the context stands behind it, and C beside W",
        (
            "z = σ(W_z x + U_z s)",
            "r = σ(W_r x + U_r s)",
            "s~ = tanh(W x + U (r ∘ s))",
            "s' = (1 - z) ∘ s + z ∘ s~",
        ),
        "before",
        "replaces",
        _PLAIN_WEIGHTS,
        (_PLAIN_BIASES,),
    ),
    Convention(
        "arxiv-1803.01686",
        "Su and Kuo 2018, arXiv 1803.01686",
        (
            "z = σ(W_z x + U_z h)",
            "r = σ(W_r x + U_r h)",
            "h~ = tanh(W x + U (r ∘ h))",
            "h' = z ∘ h + (1 - z) ∘ h~",
        ),
        "before",
        "keeps",
        _PLAIN_WEIGHTS,
        (_PLAIN_BIASES,),
    ),
    Convention(
        "arxiv-2107.02248",
        "Cahuantzi, Chen and Güttel 2021, arXiv 2107.02248",
        (
            "z = σ(W_z x + U_z h + b_z)",
            "r = σ(W_r x + U_r h + b_r)",
            "h~ = tanh(W_h x + U_h (r ∘ h) + b_h)",
            "h' = (1 - z) ∘ h + z ∘ h~",
        ),
        "before",
        "replaces",
        _H_WEIGHTS,
        (_H_BIASES,),
    ),
    Convention(
        "d2l",
        "Zhang et al., Dive into Deep Learning, d2l.ai, chapter Gated Recurrent Units",
        (
            "Z = σ(X W_xz + H W_hz + b_z)",
            "R = σ(X W_xr + H W_hr + b_r)",
            "H~ = tanh(X W_xh + (R ∘ H) W_hh + b_h)",
            "H' = Z ∘ H + (1 - Z) ∘ H~",
        ),
        "before",
        "keeps",
        (*_D2L_WEIGHTS, *_D2L_BIASES),
    ),
    Convention(
        "wikipedia",
        "Wikipedia, Gated recurrent unit, fully gated unit",
        (
            "z = σ(W_z x + U_z h + b_z)",
            "r = σ(W_r x + U_r h + b_r)",
            "ĥ = tanh(W_h x + U_h (r ∘ h) + b_h)",
            "h' = (1 - z) ∘ h + z ∘ ĥ",
        ),
        "before",
        "replaces",
        (*_H_WEIGHTS, *_H_BIASES),
    ),
    Convention(
        "wikipedia-minimal",
        "Wikipedia, Gated recurrent unit, minimal gated unit",
        (
            "f = σ(W_f x + U_f h + b_f)",
            "ĥ = tanh(W_h x + U_h (f ∘ h) + b_h)",
            "h' = (1 - f) ∘ h + f ∘ ĥ",
        ),
        "before",
        "replaces",
        (
            Array("W_f", "zr", "x"),
            Array("U_f", "zr", "h"),
            Array("b_f", "zrb"),
            Array("W_h", "n", "x"),
            Array("U_h", "n", "h"),
            Array("b_h", "nb"),
        ),
    ),
    Convention(
        "keras-reset-after",
        "keras.layers.GRU with reset_after=True, its default; gates z, r, h in the order of get_weights()",
        (
            "z = σ(x kernel_z + bias[0]_z + h recurrent_kernel_z + bias[1]_z)",
            "r = σ(x kernel_r + bias[0]_r + h recurrent_kernel_r + bias[1]_r)",
            "h~ = tanh(x kernel_h + bias[0]_h + r ∘ (h recurrent_kernel_h + bias[1]_h))",
            "h' = z ∘ h + (1 - z) ∘ h~",
        ),
        "after",
        "keeps",
        _KERAS_WEIGHTS,
        ((Array("bias", "b c", "z r n"),),),
    ),
    Convention(
        "keras-reset-before",
        "keras.layers.GRU with reset_after=False; gates z, r, h in the order of get_weights()",
        (
            "z = σ(x kernel_z + h recurrent_kernel_z + bias_z)",
            "r = σ(x kernel_r + h recurrent_kernel_r + bias_r)",
            "h~ = tanh(x kernel_h + (r ∘ h) recurrent_kernel_h + bias_h)",
            "h' = z ∘ h + (1 - z) ∘ h~",
        ),
        "before",
        "keeps",
        _KERAS_WEIGHTS,
        ((Array("bias", "zb rb nb"),),),
    ),
    Convention(
        "tensorflow1",
        "tf.nn.rnn_cell.GRUCell of TensorFlow 1, rnn_cell_impl.py; also GRUBlockCell",
        (
            "[r u] = σ([x h] gates/kernel + gates/bias)",
            "c = tanh([x (r ∘ h)] candidate/kernel + candidate/bias)",
            "h' = u ∘ h + (1 - u) ∘ c",
        ),
        "before",
        "keeps",
        (
            Array("gates/kernel", "x h", "r z"),
            Array("gates/bias", "rb zb"),
            Array("candidate/kernel", "x h", "n"),
            Array("candidate/bias", "nb"),
        ),
    ),
    Convention(
        "pytorch",
        "torch.nn.GRU and GRUCell; weight_ih is weight_ih_l0 there, and so on",
        (
            "r = σ(W_ir x + b_ir + W_hr h + b_hr)",
            "z = σ(W_iz x + b_iz + W_hz h + b_hz)",
            "n = tanh(W_in x + b_in + r ∘ (W_hn h + b_hn))",
            "h' = (1 - z) ∘ n + z ∘ h",
        ),
        "after",
        "keeps",
        (Array("weight_ih", "r z n", "x"), Array("weight_hh", "r z n", "h")),
        ((Array("bias_ih", "rb zb nb"), Array("bias_hh", "rc zc nc")),),
    ),
    Convention(
        "cudnn",
        "cuDNN, CUDNN_GRU; linLayerID 0 ... 5 are W_r, W_i, W_h, R_r, R_i, R_h",
        (
            "i = σ(W_i x + R_i h + b_Wi + b_Ri)",
            "r = σ(W_r x + R_r h + b_Wr + b_Rr)",
            "h~ = tanh(W_h x + r ∘ (R_h h + b_Rh) + b_Wh)",
            "h' = (1 - i) ∘ h~ + i ∘ h",
        ),
        "after",
        "keeps",
        _CUDNN_WEIGHTS,
        (_CUDNN_BIASES, (Array("b_Ri", "zc"), Array("b_Rr", "rc"), Array("b_Rh", "nc"))),
    ),
    Convention(
        "onnx-linear-before-reset-0",
        "ONNX operator GRU, linear_before_reset=0, its default",
        (
            "z = σ(x Wzᵀ + h Rzᵀ + Wbz + Rbz)",
            "r = σ(x Wrᵀ + h Rrᵀ + Wbr + Rbr)",
            "h~ = tanh(x Whᵀ + (r ∘ h) Rhᵀ + Rbh + Wbh)",
            "h' = (1 - z) ∘ h~ + z ∘ h",
        ),
        "before",
        "keeps",
        _ONNX_WEIGHTS,
        (_ONNX_BIAS,),
    ),
    Convention(
        "onnx-linear-before-reset-1",
        "ONNX operator GRU, linear_before_reset=1",
        (
            "z = σ(x Wzᵀ + h Rzᵀ + Wbz + Rbz)",
            "r = σ(x Wrᵀ + h Rrᵀ + Wbr + Rbr)",
            "h~ = tanh(x Whᵀ + r ∘ (h Rhᵀ + Rbh) + Wbh)",
            "h' = (1 - z) ∘ h~ + z ∘ h",
        ),
        "after",
        "keeps",
        _ONNX_WEIGHTS,
        (_ONNX_BIAS,),
    ),
    Convention(
        "flax",
        "flax.linen.GRUCell, recurrent.py; the names of its parameter tree, joined",
        (
            "r = σ(W_ir x + b_ir + W_hr h)",
            "z = σ(W_iz x + b_iz + W_hz h)",
            "n = tanh(W_in x + b_in + r ∘ (W_hn h + b_hn))",
            "h' = (1 - z) ∘ n + z ∘ h",
        ),
        "after",
        "keeps",
        (
            *(Array(f"i{gate}/kernel", "x", gate) for gate in "rzn"),
            *(Array(f"i{gate}/bias", f"{gate}b") for gate in "rzn"),
            *(Array(f"h{gate}/kernel", "h", gate) for gate in "rzn"),
            Array("hn/bias", "nc"),
        ),
    ),
)

CONVENTIONS: Final = {convention.name: convention for convention in _TABLE}
