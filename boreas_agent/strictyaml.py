"""YAML as people write it, read without guessing; the sibling of ``strictjson``.

PyYAML's safe loader lets the last of two equal keys win and turns ``2024-01-01`` into a date object, which
no JSON request can carry; here the first is an error and the second stays the text that was written.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # '<<' may be overridden by the keys beside it: that is what it is for
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} appears twice in one mapping", key_node.start_mark)
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def documents(text: str | bytes) -> Iterator[object]:
    """Every document of a YAML stream; raises ValueError with a sentence that says where it is malformed."""
    try:
        yield from yaml.load_all(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise ValueError(f"{error.problem or error.context}{where}") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def loads(text: str | bytes) -> object:
    """The only document of ``text``, None where it is empty; raises ValueError with a sentence."""
    found = list(documents(text))
    if len(found) > 1:
        raise ValueError(f"it holds {len(found)} documents; one is expected")
    return found[0] if found else None
