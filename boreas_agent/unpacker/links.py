"""Pure: where symbolic links lead, in a tree of which all links are known."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str, ...]

MOST_TURNS = 40  # links on the way of one link, as many as the kernel follows
MOST_STEPS = 255


class Escape(Exception):
    """A link does not stay inside, or nobody can tell; the message says which."""


def check(links: Mapping[Path, str]) -> None:
    """Raises Escape for a link that leads out of the tree, on any part of its way, through whatever other links."""
    for path in links:
        follow(path, links)


def follow(path: Path, links: Mapping[Path, str]) -> Path:
    """What the link at ``path`` stands for. What is not there counts as a folder: somebody may make one."""
    here, todo, turns, steps = list(path[:-1]), _parts(path, links[path]), 1, 0
    while todo:
        part = todo.pop()
        steps += 1
        if steps > MOST_STEPS or turns > MOST_TURNS:
            raise Escape(f"the link {shown(path)} leads through too many others")
        if part == "..":
            if not here:
                raise Escape(f"the link {shown(path)} leads out of the archive, to {links[path]!r}")
            here.pop()
            continue
        here.append(part)
        found = tuple(here)
        if found in links:
            turns += 1
            here.pop()
            todo += _parts(found, links[found])
    return tuple(here)


def _parts(path: Path, target: str) -> list[str]:
    """Of a target, the first one last."""
    if target.startswith("/"):
        raise Escape(f"the link {shown(path)} leads to an absolute path, {target!r}")
    return [part for part in reversed(target.split("/")) if part not in ("", ".")]


def shown(path: Path) -> str:
    """A name from an archive, for people: without what deceives a terminal, and not too long."""
    text = "/".join(path)
    return repr(text if len(text) <= 200 else f"{text[:200]}…")
