"""The program: confine itself, unpack, and say how it went."""

from __future__ import annotations

import codecs
import json
import os
import sys

from boreas_agent.unpacker.archives import BROKEN, unpack
from boreas_agent.unpacker.confine import confine
from boreas_agent.unpacker.tree import Refused, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(argument: str) -> None:
    """Standard input is the archive; ``argument`` is described in the package's docstring."""
    request = json.loads(argument)
    os.umask(0o022)
    if request["libraries"]:
        sys.path.append(request["libraries"])
        import zstandard  # noqa: F401, PLC0415  # from here on there is no file to import from
    codecs.lookup("cp437")  # nor to look for a codec in, as names in zip archives need it
    archive = os.fdopen(os.dup(0), "rb")
    answer = json.dumps(_answer(archive, request))
    os.write(1, answer.encode() + b"\n")


def _answer(archive: Any, request: dict[str, Any]) -> dict[str, Any]:
    packed = os.fstat(archive.fileno()).st_size
    try:
        confine(request["folder"], request["owner"], request["parent"], request["most_bytes"], request["seconds"])
        tree = Tree(packed, request["strip"], request["most_bytes"], request["most_entries"], request["ratio"])
        unpack(archive, request["kind"], tree)
    except Refused as error:
        return {"error": str(error), "large": error.large}
    except OSError as error:
        if error.errno is None or isinstance(error, BROKEN):
            return {"error": f"it is damaged: {error}"}
        return {"error": f"{error.strerror}: {error.filename!r}"[:500], "errno": error.errno}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except BROKEN as error:
        return {"error": f"it is damaged: {error}"[:500]}
    except Exception as error:  # noqa: BLE001  # whatever a decoder raises for what it cannot decode
        return {"error": f"it is damaged: {error!r}"[:500]}
    return {"entries": tree.entries}
