"""Names from outside become C only after a check."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

from quantgru.errors import ConfigError

_IDENTIFIER: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,30}")

# C99, and the words of C++ that C does not have: the headers are for both.
_KEYWORDS: Final = frozenset(
    """
    auto break case char const continue default do double else enum extern float for goto if inline int long register
    restrict return short signed sizeof static struct switch typedef union unsigned void volatile while
    alignas alignof and and_eq asm bitand bitor bool catch char8_t char16_t char32_t class co_await co_return co_yield
    compl concept const_cast consteval constexpr constinit decltype delete dynamic_cast explicit export false friend
    mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public reinterpret_cast
    requires static_assert static_cast template this thread_local throw true try typeid typename using virtual wchar_t
    xor xor_eq main
    """.split()
)

# A file of the exported folder with one of these names would hide the system's header.
_HEADERS: Final = frozenset(
    """
    assert complex ctype errno fenv float inttypes iso646 limits locale math memory setjmp signal stdarg stdbool stddef
    stdint stdio stdlib string tgmath time wchar wctype
    """.split()
)


# A microvolt must not read as a volt.
_SPELLED: Final = str.maketrans(
    {"µ": "u", "\u03bc": "u", "°": "deg", "Ω": "ohm", "\u2126": "ohm", "²": "^2", "³": "^3", "·": "."}
)

# CMake has targets of these names.
_CMAKE_TARGETS: Final = frozenset("all clean help install package package_source test edit_cache rebuild_cache".split())


def c_name(name: str) -> str:
    """Returns `name` if it can start C identifiers and file names. Raises ConfigError."""
    if not (isinstance(name, str) and _is_c_name(name)):
        raise ConfigError(
            f"model name {name!r}: cannot be used in C; allowed are up to 31 letters, digits and _, starting with a "
            "letter, no keyword, no system header, no target of CMake, not 'qg', not beginning with 'qg_' or "
            "'quantgru'; choose another with name= or --name"
        )
    return name


def nearest_c_name(text: str) -> str:
    """A name that `c_name` takes: `text` itself if it can be, else one that is close to it.

    >>> [nearest_c_name(text) for text in ("kws_2", "2fast-model", "modèle", "int", "signal", "")]
    ['kws_2', 'model_2fast_model', 'modele', 'model_int', 'model_signal', 'model']
    """
    if _is_c_name(text):
        return text
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    words = re.sub(r"[^A-Za-z0-9]+", "_", plain).strip("_")[:31].rstrip("_")
    return words if _is_c_name(words) else f"model_{words}"[:31].rstrip("_")


def _is_c_name(name: object) -> bool:
    return (
        isinstance(name, str)
        and _IDENTIFIER.fullmatch(name) is not None
        and name not in _KEYWORDS
        and name.lower() not in _HEADERS | _CMAKE_TARGETS
        and name.lower() != "qg"  # the library's prefix
        and not name.lower().startswith(("qg_", "quantgru"))
    )


def comment_text(text: str) -> str:
    """`text` in ASCII, without anything that could end a comment or a line.

    >>> comment_text("µV, °C, m/s²"), comment_text("*/ evil")
    ('uV_ degC_ m/s^2', '_/ evil')
    """
    return re.sub(r"[^A-Za-z0-9_./%^ -]", "_", text.translate(_SPELLED))
