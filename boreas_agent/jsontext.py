"""Values as JSON text: in ASCII, so that no text from a request can make it unencodable, and as short as can be.

The encoders are made once; ``json.dumps`` makes one for every value, which costs more than most of ours do. What cannot be JSON (NaN, for
one) raises ValueError or TypeError.
"""

from __future__ import annotations

from collections.abc import Mapping
from json import JSONEncoder
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]  # typeshed does not know the first

quoted = encode_basestring_ascii
"""A string."""
_refuse = JSONEncoder().default
_AS_IT_IS = c_make_encoder(None, _refuse, quoted, None, ":", ",", False, False, False)
_SORTED = c_make_encoder(None, _refuse, quoted, None, ":", ",", True, False, False)


def compact(value: object) -> str:
    """Any value; the keys of objects come as they are."""
    return "".join(_AS_IT_IS(value, 0))


def canonical(value: object) -> str:
    """Any value; the keys of all objects come in their order, so that equal values are equal texts."""
    return "".join(_SORTED(value, 0))


def joined(members: Mapping[str, str]) -> str:
    """The canonical text of an object, of members whose own are here already, by names that need no quoting."""
    return "{" + ",".join([f'"{name}":{text}' for name, text in sorted(members.items())]) + "}"
