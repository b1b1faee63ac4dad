"""What docs/sources.md calls refused, made: of each cell "no", and of each row of its table of refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from support_cases import INPUTS, UNITS, Functions
from support_fixtures import MODELS
from support_keras import keras, layers
from support_pytorch import Net, gru, module_of
from torch import nn

PLAIN: Final = Functions("sigmoid", "tanh", "after", "two")


@dataclass(frozen=True)
class Refused:
    """`form` with `options`: what must not be loaded; `named` must be in the error."""

    form: Any
    named: str
    options: Mapping[str, Any] = field(default_factory=dict)


# ---- the cells "no" ------------------------------------------------------------------------------------------------


OF_CELLS: Final[dict[tuple[str, str], Callable[[Path], Refused]]] = {
    ("PyTorch", "lengths as an input"): lambda folder: Refused(
        module_of("lengths as an input", PLAIN), "pack_padded_sequence"
    ),
}


# ---- the table of refusals -----------------------------------------------------------------------------------------


def _net(forward: Callable[..., Any], **parts: nn.Module) -> nn.Module:
    return Net(forward, "linear", gru=gru(PLAIN), **parts)


def _sequential(*parts: Any) -> keras.Model:
    return keras.Sequential([keras.Input((None, INPUTS)), *parts])


def _pickled(folder: Path) -> Path:
    torch.save(nn.GRU(2, 3), folder / "module.pt")
    return folder / "module.pt"


def _tflite(folder: Path) -> Path:
    (folder / "model.tflite").write_bytes(b"TFL3")
    return folder / "model.tflite"


def _forward_by_sign(net: Net, x: torch.Tensor) -> torch.Tensor:
    return net.gru(x)[0] if x.sum() > 0 else x


def _outputs_of_two_layers(net: Net, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    y = net.gru(x)[0]
    return y, net.fc(y)


IN_LIST: Final[dict[str, Callable[[Path], Any]]] = {
    "softmax or log_softmax at the end": lambda folder: _sequential(layers.GRU(3), layers.Dense(2, "softmax")),
    "another recurrent cell": lambda folder: _sequential(layers.LSTM(3)),
    "a layer that is neither dense nor a fixed scale": lambda folder: _sequential(
        layers.GRU(3), layers.LayerNormalization()
    ),
    "a function that is not in the table": lambda folder: MODELS / "onnx" / "hand_refused_softsign.onnx",
    "branches": lambda folder: _net(lambda net, x: net.gru(x)[0] + net.fc(x), fc=nn.Linear(INPUTS, UNITS)),
    "control flow that depends on the input": lambda folder: _net(_forward_by_sign),
    "several outputs": lambda folder: _net(_outputs_of_two_layers, fc=nn.Linear(UNITS, 2)),
    "clipping": lambda folder: MODELS / "onnx" / "hand_refused_clip.onnx",
    "lengths of one batch, as constants": lambda folder: MODELS / "onnx" / "hand_lengths.onnx",
    "masks in ONNX": lambda folder: MODELS / "onnx" / "keras_tensorflow_masked.onnx",
    "an export of Keras on PyTorch with a free number of steps": lambda folder: (
        MODELS / "onnx" / "keras_torch_open_steps.onnx"
    ),
    "a pickled module": _pickled,
    "code in a file": lambda folder: _sequential(layers.Lambda(lambda x: 2 * x), layers.GRU(3)),
    "a mask of what a layer computed": lambda folder: _sequential(layers.Dense(2), layers.Masking(), layers.GRU(3)),
    "TensorFlow Lite, SavedModel": _tflite,
}
