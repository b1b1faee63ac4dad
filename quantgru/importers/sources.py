"""Everything that can be loaded: which file types, by which importer, and with what it needs."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final


@dataclass(frozen=True)
class Source:
    """One kind of source.

    suffixes  file types; none for live objects
    what      for people
    reader    module of `importers` and function(path or object, ImportOptions) in it
    package   what must be installed, beside quantgru itself; empty if nothing
    options   the fields of ImportOptions that it takes
    """

    suffixes: tuple[str, ...]
    what: str
    reader: tuple[str, str]
    package: str
    options: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Whether the package that it needs is there."""
        try:
            return not self.package or find_spec(_MODULES.get(self.package, self.package)) is not None
        except ModuleNotFoundError:  # of the package around a module
            return False


_MODULES: Final = {"protobuf": "google.protobuf"}  # where a package's name is not that of its module

KERAS_OBJECT: Final = Source((), "live Keras 3 model or GRU layer", ("keras", "load_keras"), "keras", ("softmax",))
PYTORCH_OBJECT: Final = Source((), "live PyTorch module", ("pytorch", "load_pytorch"), "torch", ("softmax",))
STATE_DICT: Final = Source(
    (), "state dict: a mapping of names to tensors", ("state_dict", "load_state_dict"), "", ("softmax", "chain")
)
FILES: Final = (
    Source((".keras",), "Keras 3 model", ("keras_file", "load_keras_file"), "", ("softmax",)),
    Source(
        (".h5", ".hdf5"),
        "Keras 2 or Keras 3 model, or weights of Keras 3 (.weights.h5)",
        ("keras_h5", "load_h5_file"),
        "",
        ("softmax", "chain"),
    ),
    Source((".onnx",), "ONNX model", ("onnx_file", "load_onnx_file"), "onnx", ("softmax", "reset")),
    Source(
        (".pt", ".pth", ".tar", ".ckpt", ".bin"),
        "PyTorch state dict or checkpoint",
        ("state_dict", "load_pt_file"),
        "",
        ("softmax", "chain"),
    ),
    Source(
        (".safetensors",),
        "state dict in safetensors",
        ("state_dict", "load_safetensors_file"),
        "",
        ("softmax", "chain"),
    ),
    Source((".pb",), "TensorFlow 1 frozen graph", ("tensorflow1", "load_graph_file"), "protobuf", ("softmax",)),
    Source((".npz",), "plain arrays, named as in a convention", ("arrays", "load_npz_file"), "", ("convention",)),
    Source((".qgf",), "float model by FloatModel.save", ("qgf_file", "load_qgf_file"), "", ()),
)

# What people also have, and what to give instead.
OTHER_FILES: Final = {
    ".qgru": "is already quantized: use it with simulate, explain, export, hil, or qg.IntModel.load(path)",
    ".pbtxt": "a graph as text; write it in binary: tf.io.write_graph(graph, folder, name, as_text=False)",
    ".pt2": "a program of torch.export; give the nn.Module that was exported, or save its state dict as .pt",
    ".tflite": "a TensorFlow Lite model; give the Keras model that it was made from",
    ".pkl": "a pickle, which can run code when it is read; save a state dict, or arrays as .npz",
    ".pickle": "a pickle, which can run code when it is read; save a state dict, or arrays as .npz",
    ".npy": "a single array; save all arrays of a layer with np.savez",
    ".json": "a configuration without weights; give the file that holds both",
}

EVERY_SOURCE: Final = (*FILES, PYTORCH_OBJECT, KERAS_OBJECT, STATE_DICT)
