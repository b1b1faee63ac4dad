"""How deep the stack of a program becomes, from what the compiler and objdump say about its object files.

The frame of each function is in the .su file that -fstack-usage writes. Who calls whom is in the relocations: with
-ffunction-sections, those of section .text.NAME are what NAME refers to. The library calls through pointers, too, which
descriptors hold: to what is not written down, so that every function of a fitting kind is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_TEXT = r"\.text\.(?:(?:unlikely|startup|hot)\.)?"  # what stands before the name of a function
_SECTION = re.compile(r"RELOCATION RECORDS FOR \[(\.[\w.]+)\]:")
_CODE = re.compile(rf"{_TEXT}(\w+)")
_RELOCATION = re.compile(rf"^[0-9a-f]+ +R_\w+ +(?:{_TEXT})?([A-Za-z_]\w*)", re.MULTILINE)
_FRAME = re.compile(r"^(\S+?):\d+:\d+:(\w+)\S*\t(\d+)\t(static|dynamic,bounded)$", re.MULTILINE)
_FUNCTION = re.compile(r"^[0-9a-f]+ <(\w+)[\w.]*>:$", re.MULTILINE)

# Calls and jumps through a register or pointer on ARM, RISC-V (a direct one has a comment), AVR and x86.
_CALL = re.compile(r"\t(?:blx\s+(?:r\d+|ip)|jalr\s+\w+$|e?icall\b|callq?\s+\*)", re.MULTILINE)
_JUMP = re.compile(r"\t(?:bx\s+(?:r\d+|ip)|jr\s+\w+$|e?ijmp\b|jmpq?\s+\*)", re.MULTILINE)

_STEPS = ("qg_step", "qg_gru_")  # of models, which wrappers call by name, and of layers
_AFFINE = "qg_affine_"  # of matrices
_DOTS = "qg_dot_"  # of sections

# Files of the library, by how their names begin: what they call through pointers begins so.
_CALLS_ONLY = {"qg_affine": _DOTS, "qg_packed": _DOTS, "qg_avr": _AFFINE}
# The same: what they call does not begin so. All other files call no more than layers.
_CALLS_NO = dict.fromkeys(("qg_gru", "qg_dense"), (*_STEPS, _DOTS))
_OTHERS_CALL_NO = ("qg_step", _AFFINE, _DOTS)


@dataclass
class Functions:
    """What is known of the functions of a program, by name.

    frames      bytes on the stack, return address included where it is there
    files       the source of each
    references  what each calls or refers to
    calls       those that call through a pointer
    jumps       those that jump to another function through a pointer, as their last act: their frame is free by then
    pointed_to  functions to which constants point
    """

    frames: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    references: dict[str, set[str]] = field(default_factory=dict)
    calls: set[str] = field(default_factory=set)
    jumps: set[str] = field(default_factory=set)
    pointed_to: set[str] = field(default_factory=set)


def read_functions(stack_usage: Iterable[str], relocations: str, disassembly: str) -> Functions:
    """From the texts of all .su files, and what `objdump -r` and `objdump -d` print for all object files."""
    found = Functions()
    for text in stack_usage:
        for file, name, size, _ in _FRAME.findall(text):
            found.frames[name] = max(int(size), found.frames.get(name, 0))
            found.files[name] = file.rsplit("/", 1)[-1]
    for section, body in _parts(_SECTION, relocations):
        names = {name for name in _RELOCATION.findall(body) if name in found.frames}
        if code := _CODE.match(section):
            found.references.setdefault(code[1], set()).update(names - {code[1]})
        elif section.startswith((".rodata", ".data", ".progmem")):
            found.pointed_to |= names - {section.rsplit(".", 1)[-1]}  # a function's own section holds its jump table
    for name, body in _parts(_FUNCTION, disassembly):
        if _CALL.search(body):
            found.calls.add(name)
        elif _JUMP.search(body):
            found.jumps.add(name)
    return found


def deepest_stack(functions: Functions, entries: Iterable[str]) -> int:
    """Bytes that the deepest chain of calls below one of `entries` can take, the frame of the entry included.

    Functions without a known frame, of the C library and the compiler's own, are left out.
    """
    return max(_depth(functions, entry, frozenset()) for entry in entries)


def _depth(functions: Functions, name: str, above: frozenset[str]) -> int:
    """No function of the library calls itself, in no way: one that is `above` already is not called again."""
    chain = above | {name}

    def deepest(called: set[str]) -> int:
        return max((_depth(functions, callee, chain) for callee in called - chain), default=0)

    called, pointed_to = functions.references.get(name, set()), _pointed_to(functions, name)
    if name in functions.calls:
        called = called | pointed_to
    own = functions.frames[name] + deepest(called)
    return max(own, deepest(pointed_to)) if name in functions.jumps else own


def _pointed_to(functions: Functions, caller: str) -> set[str]:
    """What a function can reach through a pointer, if it goes through one."""
    file = functions.files[caller]
    for prefix, only in _CALLS_ONLY.items():
        if file.startswith(prefix):
            return {name for name in functions.pointed_to if name.startswith(only)}
    not_called = next((names for prefix, names in _CALLS_NO.items() if file.startswith(prefix)), _OTHERS_CALL_NO)
    return {name for name in functions.pointed_to if not name.startswith(not_called)}


def _parts(heading: re.Pattern[str], text: str) -> Iterable[tuple[str, str]]:
    """(what a heading names, what stands below it)"""
    pieces = heading.split(text)
    return zip(pieces[1::2], pieces[2::2], strict=True)
