"""Values as JSON text."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boreas_agent import jsontext

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_any_value_is_what_the_library_makes_of_it(value: Any) -> None:
    assert jsontext.compact(value) == json.dumps(value, separators=(",", ":"))
    assert jsontext.canonical(value) == json.dumps(value, separators=(",", ":"), sort_keys=True)


@given(st.text())
def test_a_string_is_quoted_as_in_any_value(text: str) -> None:
    assert jsontext.quoted(text) == json.dumps(text)


@given(st.dictionaries(st.text("abc_", min_size=1), values))
def test_members_that_are_text_already_make_the_same_object(members: dict[str, Any]) -> None:
    texts = {name: jsontext.canonical(value) for name, value in members.items()}
    assert jsontext.joined(texts) == jsontext.canonical(members)


@pytest.mark.parametrize(("value", "error"), [(math.nan, ValueError), (math.inf, ValueError), (object(), TypeError)])
def test_what_cannot_be_json_is_an_error(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        jsontext.compact([value])
    with pytest.raises(error):
        jsontext.canonical({"it": value})
