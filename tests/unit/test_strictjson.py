"""JSON from strangers: what is read, and what is refused with a sentence."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boreas_agent import strictjson

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@given(PLAIN)
def test_whatever_json_can_say_is_read_as_python_reads_it(value: object) -> None:
    for ascii_only in (True, False):
        text = json.dumps(value, ensure_ascii=ascii_only)
        assert strictjson.loads(text.encode()) == json.loads(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused_with_a_value_error(body: bytes) -> None:
    try:
        strictjson.loads(body)
    except ValueError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"{", "not JSON: Expecting property name"),
        (b"{} {}", "not JSON: Extra data"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[1e999]", "1e999 is too large"),
        (b"[" + b"9" * 5000 + b"]", "too many digits"),
        (b'{"a": 1, "a": 1}', "'a' appears twice"),
        (b'[{"b": {"a": 1, "\\u0061": 2}}]', "'a' appears twice"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        (b'\xef\xbb\xbf{"a": 1}', "not JSON"),
        (b'"\\ud800"', "half a surrogate pair"),
        (b'{"\\udfff": 1}', "half a surrogate pair"),
        (b'"a\nb"', "not JSON: Invalid control character"),
        (b'"a\0b"', "not JSON: Invalid control character"),
        (b"[" * 33 + b"0" + b"]" * 33, "nested too deeply"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 50_000, "nested too deeply"),
        (json.dumps(dict.fromkeys(map(str, range(3000)))).encode(), "3000 keys; at most 2048"),
    ],
)
def test_what_is_ambiguous_or_not_json_is_refused_by_a_sentence(body: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        strictjson.loads(body)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "body", [b"[" * 32 + b"0" + b"]" * 32, b'["' + b"[" * 1000 + b'"]', b"[" + b"[]," * 1000 + b"[]]", b'"\\ud83d\\ude00"']
)
def test_brackets_in_strings_many_lists_and_whole_surrogate_pairs_are_fine(body: bytes) -> None:
    assert strictjson.loads(body) == json.loads(body)
