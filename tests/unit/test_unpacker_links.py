"""Where links lead that lead through each other."""

from __future__ import annotations

import pytest

from boreas_agent.unpacker.links import Escape, Path, check, follow


def path(text: str) -> Path:
    return tuple(text.split("/"))


@pytest.mark.parametrize(
    ("links", "link", "leads_to"),
    [
        ({"l": "a/b"}, "l", "a/b"),
        ({"d/l": "../x"}, "d/l", "x"),
        ({"l": "./a//b/."}, "l", "a/b"),
        ({"l": "m/c", "m": "a/b"}, "l", "a/b/c"),
        ({"d/l": "up/x", "d/up": ".."}, "d/l", "x"),
        ({"l": "missing/../x"}, "l", "x"),
    ],
)
def test_a_link_that_stays_inside(links: dict[str, str], link: str, leads_to: str) -> None:
    table = {path(name): target for name, target in links.items()}
    assert follow(path(link), table) == path(leads_to)
    check(table)


def test_a_link_may_lead_to_the_root_itself() -> None:
    assert follow(("l",), {("l",): "."}) == ()


@pytest.mark.parametrize(
    ("links", "why"),
    [
        ({"l": "/etc"}, "absolute"),
        ({"l": ".."}, "out of the archive"),
        ({"d/l": "../.."}, "out of the archive"),
        ({"d/l": "../../x"}, "out of the archive"),
        ({"d/e/up": "../..", "l": "d/e/up/../x"}, "out of the archive"),
        ({"a": "b/..", "b": "."}, "out of the archive"),
        ({"a": "b", "b": "a"}, "too many others"),
        ({"a": "a"}, "too many others"),
        ({f"{number}": f"{number + 1}" for number in range(50)}, "too many others"),
        ({"l": "a/" * 300}, "too many others"),
    ],
)
def test_a_link_that_does_not(links: dict[str, str], why: str) -> None:
    with pytest.raises(Escape, match=why):
        check({path(name): target for name, target in links.items()})
