"""The messages of TensorFlow 1 graphs as classes of protobuf, made from their field numbers: no generated code.

Source of the numbers: tensorflow/core/framework/{graph,node_def,attr_value,tensor,tensor_shape}.proto. Fields that no
frozen graph needs are left out; protobuf skips what it does not know.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

# Of each field its number and its type, * if there may be many. A map is a list of entries, which is the same in bytes.
_FIELDS: Final[dict[str, dict[str, tuple[int, str]]]] = {
    "GraphDef": {"node": (1, "NodeDef*")},
    "NodeDef": {"name": (1, "string"), "op": (2, "string"), "input": (3, "string*"), "attr": (5, "AttrEntry*")},
    "AttrEntry": {"key": (1, "string"), "value": (2, "AttrValue")},
    "AttrValue": {
        "list": (1, "ListValue"),
        "s": (2, "bytes"),
        "i": (3, "int64"),
        "f": (4, "float"),
        "b": (5, "bool"),
        "type": (6, "int32"),
        "shape": (7, "TensorShapeProto"),
        "tensor": (8, "TensorProto"),
    },
    "ListValue": {"i": (3, "int64*")},
    "TensorShapeProto": {"dim": (2, "Dim*"), "unknown_rank": (3, "bool")},
    "Dim": {"size": (1, "int64")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "float*"),
        "double_val": (6, "double*"),
        "int_val": (7, "int32*"),
        "int64_val": (10, "int64*"),
        "bool_val": (11, "bool*"),
        "half_val": (13, "int32*"),
    },
}
_TYPES: Final = {"double": 1, "float": 2, "int64": 3, "int32": 5, "bool": 8, "string": 9, "message": 11, "bytes": 12}

DecodeError: Final = message.DecodeError


def _classes(package: str, flat: bool) -> dict[str, Any]:
    """The classes by name. Flat ones keep a message inside of a message as its bytes, which is the same in a file."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in _FIELDS.items():
        described = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            plain = kind.rstrip("*")
            inner = plain in _FIELDS and not flat
            described.field.add(
                name=field,
                number=number,
                label=3 if kind.endswith("*") else 1,  # repeated or optional
                type=_TYPES["message" if inner else "bytes" if plain in _FIELDS else plain],
                type_name=f".{package}.{plain}" if inner else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in _FIELDS}


# For reading what may have been made to harm: a hundred bytes of memory for two of a file are not asked for at once.
FLAT: Final = _classes("flat", flat=True)

# For writing graphs, and changing them.
NESTED: Final = _classes("nested", flat=False)
GraphDef: Final = NESTED["GraphDef"]
