"""The formula of each convention, one step of it, with plain `math` on lists, and the shapes of its arrays.

Written from the sources that docs/conventions.md names; knows nothing of quantgru.
"""

from __future__ import annotations

import math

import numpy as np

# ---- plain mathematics on lists ------------------------------------------------------------------------------------


def sigma(v):
    return [1 / (1 + math.exp(-a)) for a in v]


def tanh(v):
    return [math.tanh(a) for a in v]


def add(*vectors):
    return [sum(values) for values in zip(*vectors, strict=True)]


def times(v, w):
    return [a * b for a, b in zip(v, w, strict=True)]


def rest(v):
    return [1 - a for a in v]


def matrix(m, v):
    """A matrix times a column."""
    return [sum(a * b for a, b in zip(row, v, strict=True)) for row in m]


def row(v, m):
    """A row times a matrix."""
    return [sum(a * m_row[j] for a, m_row in zip(v, m, strict=True)) for j in range(len(m[0]))]


def part(values, i, n):
    """Part i of n equal ones."""
    size = len(values) // n
    return values[i * size : (i + 1) * size]


def columns(m, i, n):
    return [part(values, i, n) for values in m]


# ---- one step of each convention: arrays, x, h -> h' ---------------------------------------------------------------


def plain_gates(x, h, W_z, U_z, W_r, U_r, W, U, b_z, b_r, b):
    z = sigma(add(matrix(W_z, x), matrix(U_z, h), b_z))
    r = sigma(add(matrix(W_r, x), matrix(U_r, h), b_r))
    new = tanh(add(matrix(W, x), matrix(U, times(r, h)), b))
    return z, new


def cho2014(x, h, **arrays):
    z, new = plain_gates(x, h, **arrays)
    return add(times(z, h), times(rest(z), new))


def chung2014(x, h, **arrays):
    z, new = plain_gates(x, h, **arrays)
    return add(times(rest(z), h), times(z, new))


def bahdanau2015(x, s, **arrays):
    z, new = plain_gates(x, s, **arrays)
    return add(times(rest(z), s), times(z, new))


def su_kuo2018(x, h, **arrays):
    z, new = plain_gates(x, h, **arrays)
    return add(times(z, h), times(rest(z), new))


def wikipedia(x, h, W_z, U_z, b_z, W_r, U_r, b_r, W_h, U_h, b_h):
    z = sigma(add(matrix(W_z, x), matrix(U_z, h), b_z))
    r = sigma(add(matrix(W_r, x), matrix(U_r, h), b_r))
    new = tanh(add(matrix(W_h, x), matrix(U_h, times(r, h)), b_h))
    return add(times(rest(z), h), times(z, new))


def wikipedia_minimal(x, h, W_f, U_f, b_f, W_h, U_h, b_h):
    f = sigma(add(matrix(W_f, x), matrix(U_f, h), b_f))
    new = tanh(add(matrix(W_h, x), matrix(U_h, times(f, h)), b_h))
    return add(times(rest(f), h), times(f, new))


def d2l(X, H, W_xz, W_hz, b_z, W_xr, W_hr, b_r, W_xh, W_hh, b_h):
    Z = sigma(add(row(X, W_xz), row(H, W_hz), b_z))
    R = sigma(add(row(X, W_xr), row(H, W_hr), b_r))
    new = tanh(add(row(X, W_xh), row(times(R, H), W_hh), b_h))
    return add(times(Z, H), times(rest(Z), new))


def keras_reset_after(x, h, kernel, recurrent_kernel, bias):
    from_x = [add(row(x, columns(kernel, i, 3)), part(bias[0], i, 3)) for i in range(3)]
    from_h = [add(row(h, columns(recurrent_kernel, i, 3)), part(bias[1], i, 3)) for i in range(3)]
    z, r = sigma(add(from_x[0], from_h[0])), sigma(add(from_x[1], from_h[1]))
    new = tanh(add(from_x[2], times(r, from_h[2])))
    return add(times(z, h), times(rest(z), new))


def keras_reset_before(x, h, kernel, recurrent_kernel, bias):
    from_x = [add(row(x, columns(kernel, i, 3)), part(bias, i, 3)) for i in range(3)]
    z = sigma(add(from_x[0], row(h, columns(recurrent_kernel, 0, 3))))
    r = sigma(add(from_x[1], row(h, columns(recurrent_kernel, 1, 3))))
    new = tanh(add(from_x[2], row(times(r, h), columns(recurrent_kernel, 2, 3))))
    return add(times(z, h), times(rest(z), new))


def tensorflow1(x, h, **arrays):
    value = sigma(add(row([*x, *h], arrays["gates/kernel"]), arrays["gates/bias"]))
    r, u = part(value, 0, 2), part(value, 1, 2)
    c = tanh(add(row([*x, *times(r, h)], arrays["candidate/kernel"]), arrays["candidate/bias"]))
    return add(times(u, h), times(rest(u), c))


def pytorch(x, h, weight_ih, weight_hh, bias_ih, bias_hh):
    W_ir, W_iz, W_in = (part(weight_ih, i, 3) for i in range(3))
    W_hr, W_hz, W_hn = (part(weight_hh, i, 3) for i in range(3))
    b_ir, b_iz, b_in = (part(bias_ih, i, 3) for i in range(3))
    b_hr, b_hz, b_hn = (part(bias_hh, i, 3) for i in range(3))
    r = sigma(add(matrix(W_ir, x), b_ir, matrix(W_hr, h), b_hr))
    z = sigma(add(matrix(W_iz, x), b_iz, matrix(W_hz, h), b_hz))
    n = tanh(add(matrix(W_in, x), b_in, times(r, add(matrix(W_hn, h), b_hn))))
    return add(times(rest(z), n), times(z, h))


def cudnn(x, h, W_i, W_r, W_h, R_i, R_r, R_h, b_Wi, b_Wr, b_Wh, b_Ri, b_Rr, b_Rh):
    i = sigma(add(matrix(W_i, x), matrix(R_i, h), b_Wi, b_Ri))
    r = sigma(add(matrix(W_r, x), matrix(R_r, h), b_Wr, b_Rr))
    new = tanh(add(matrix(W_h, x), times(r, add(matrix(R_h, h), b_Rh)), b_Wh))
    return add(times(rest(i), new), times(i, h))


def onnx_gates(x, h, W, R, B):
    Wbz, Wbr, Wbh, Rbz, Rbr, Rbh = (part(B, i, 6) for i in range(6))
    z = sigma(add(matrix(part(W, 0, 3), x), matrix(part(R, 0, 3), h), Wbz, Rbz))
    r = sigma(add(matrix(part(W, 1, 3), x), matrix(part(R, 1, 3), h), Wbr, Rbr))
    return z, r, part(W, 2, 3), part(R, 2, 3), Wbh, Rbh


def onnx_0(x, h, **arrays):
    z, r, W_h, R_h, Wbh, Rbh = onnx_gates(x, h, **arrays)
    new = tanh(add(matrix(W_h, x), matrix(R_h, times(r, h)), Rbh, Wbh))
    return add(times(rest(z), new), times(z, h))


def onnx_1(x, h, **arrays):
    z, r, W_h, R_h, Wbh, Rbh = onnx_gates(x, h, **arrays)
    new = tanh(add(matrix(W_h, x), times(r, add(matrix(R_h, h), Rbh)), Wbh))
    return add(times(rest(z), new), times(z, h))


def flax(x, h, **p):
    r = sigma(add(row(x, p["ir/kernel"]), p["ir/bias"], row(h, p["hr/kernel"])))
    z = sigma(add(row(x, p["iz/kernel"]), p["iz/bias"], row(h, p["hz/kernel"])))
    n = tanh(add(row(x, p["in/kernel"]), p["in/bias"], times(r, add(row(h, p["hn/kernel"]), p["hn/bias"]))))
    return add(times(rest(z), n), times(z, h))


# ---- arrays and shapes of each, for I inputs and H units; after the bar: what may be left out, together -------------

PLAIN = "W_z HxI U_z HxH W_r HxI U_r HxH W HxI U HxH | b_z H b_r H b H"
IN_H = "W_z HxI U_z HxH W_r HxI U_r HxH W_h HxI U_h HxH"
REFERENCES = {
    "cho2014": (cho2014, PLAIN),
    "chung2014": (chung2014, PLAIN),
    "bahdanau2015": (bahdanau2015, PLAIN),
    "arxiv-1803.01686": (su_kuo2018, PLAIN),
    "arxiv-2107.02248": (wikipedia, IN_H + " | b_z H b_r H b_h H"),
    "d2l": (d2l, "W_xz IxH W_hz HxH b_z H W_xr IxH W_hr HxH b_r H W_xh IxH W_hh HxH b_h H"),
    "wikipedia": (wikipedia, IN_H + " b_z H b_r H b_h H"),
    "wikipedia-minimal": (wikipedia_minimal, "W_f HxI U_f HxH b_f H W_h HxI U_h HxH b_h H"),
    "keras-reset-after": (keras_reset_after, "kernel Ix3H recurrent_kernel Hx3H | bias 2x3H"),
    "keras-reset-before": (keras_reset_before, "kernel Ix3H recurrent_kernel Hx3H | bias 3H"),
    "tensorflow1": (tensorflow1, "gates/kernel I+Hx2H gates/bias 2H candidate/kernel I+HxH candidate/bias H"),
    "pytorch": (pytorch, "weight_ih 3HxI weight_hh 3HxH | bias_ih 3H bias_hh 3H"),
    "cudnn": (
        cudnn,
        "W_i HxI W_r HxI W_h HxI R_i HxH R_r HxH R_h HxH | b_Wi H b_Wr H b_Wh H | b_Ri H b_Rr H b_Rh H",
    ),
    "onnx-linear-before-reset-0": (onnx_0, "W 3HxI R 3HxH | B 6H"),
    "onnx-linear-before-reset-1": (onnx_1, "W 3HxI R 3HxH | B 6H"),
    "flax": (
        flax,
        "ir/kernel IxH iz/kernel IxH in/kernel IxH ir/bias H iz/bias H in/bias H "
        "hr/kernel HxH hz/kernel HxH hn/kernel HxH hn/bias H",
    ),
}


def shape(text, inputs, units):
    """'I+Hx3H' -> (inputs + units, 3 * units)"""
    sizes = {"I": inputs, "H": units}
    return tuple(
        sum(int(term[:-1] or 1) * sizes[term[-1]] if term[-1] in sizes else int(term) for term in axis.split("+"))
        for axis in text.split("x")
    )


def random_arrays(name, inputs, units, seed=0):
    """The groups of arrays of a convention, all values different: first what it has to have."""
    generator = np.random.default_rng(seed)
    groups = []
    for text in REFERENCES[name][1].split("|"):
        words = text.split()
        pairs = zip(words[::2], words[1::2], strict=True)
        groups.append({key: generator.normal(0, 0.7, shape(size, inputs, units)) for key, size in pairs})
    return groups


def all_arrays(name, inputs, units):
    return {key: values for group in random_arrays(name, inputs, units) for key, values in group.items()}


def reference_run(name, arrays, x, h):
    """[steps, units], with plain mathematics."""
    plain = {key: value.tolist() for key, value in arrays.items()}
    h, states = list(h), []
    for x_t in x.tolist():
        h = REFERENCES[name][0](x_t, h, **plain)
        states.append(h)
    return np.array(states)
