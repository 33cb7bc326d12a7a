"""JSON as strangers send it, read without guessing.

Python's parser takes NaN, lets the last of two equal keys win, turns 1e999 into infinity, and lets through
nesting and half surrogate pairs that break whoever walks or encodes the value later; each of these would
record something other than what the sender meant.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")
_SPACE = re.compile(r"\s*")
MAX_DEPTH = 32
"""Nothing in an app's spec is nested deeper than about six levels."""
MAX_KEYS = 2048
"""In one object: finding fault with each of a hundred thousand would take seconds."""


class _Refused(ValueError):
    """Already a sentence for the sender, unlike the other ValueErrors of the parser."""


def loads(body: bytes) -> object:
    """Parse ``body``; raises ValueError with a sentence for anything that is not plain, unambiguous JSON."""
    return _parsed(_text(body), _DECODER.decode)


def documents(body: bytes) -> list[object]:
    """Every value of ``body``, where several follow each other (JSON lines, for one); raises ValueError as :func:`loads`."""
    return _parsed(_text(body), _each)


def _each(text: str) -> list[object]:
    found: list[object] = []
    position = len(text) - len(text.lstrip())
    while position < len(text):
        value, end = _DECODER.raw_decode(text, position)
        found.append(value)
        space = _SPACE.match(text, end)
        position = space.end() if space else end
    return found


def _text(body: bytes) -> str:
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"the body is not UTF-8 (byte {error.start})") from None
    if not text.strip():
        raise ValueError("the body is empty; it must be JSON")
    return text


def _parsed(text: str, parse: Callable[[str], T]) -> T:
    try:
        value = parse(text)
    except _Refused:
        raise
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python refuses to convert thousands of digits
        raise ValueError("the body has a number with too many digits") from None
    # The counts bound what they stand for and cost a microsecond; few bodies need the closer look.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    if "\\u" in text:
        _check_surrogates(value)
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    parsed = dict(pairs)
    if len(parsed) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"the key {key[:100]!r} appears twice in one object")
            seen.add(key)
    if len(parsed) > MAX_KEYS:
        raise _Refused(f"an object has {len(parsed)} keys; at most {MAX_KEYS} are accepted")
    return parsed


def _constant(name: str) -> NoReturn:
    raise _Refused(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Refused(f"the number {text[:40]} is too large")
    return value


def _too_deep() -> ValueError:
    return ValueError(f"the body is nested too deeply (more than {MAX_DEPTH} levels)")


def _check_depth(value: object) -> None:
    """Level by level, because a recursive walk is what deep nesting would break."""
    level: list[object] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
        if not below:
            return
        level = below
    raise _too_deep()


def _check_surrogates(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("the body has half a surrogate pair, which is not text") from None


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)
