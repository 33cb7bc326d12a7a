"""Environment variables that files on the node hold (``environment_from``): read at each start, recorded nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from io import StringIO

from dotenv.parser import Binding, parse_stream

from boreas_agent.artifacts.node_files import read_file
from boreas_agent.errors import Terminal
from boreas_agent.model import InstanceName
from boreas_agent.spec import EnvironmentFile

MAX_BYTES = 1024 * 1024


def read(files: Iterable[EnvironmentFile], instance: InstanceName) -> dict[str, str]:
    """What the files say, later ones over earlier ones. Blocks. Raises Terminal where one cannot be read or understood."""
    found: dict[str, str] = {}
    for file in files:
        text = _text(file, instance)
        for line in parse_stream(StringIO(text)):
            if line.error or (line.key is not None and (line.value is None or "\0" in line.value)):
                raise Terminal(f"cannot start {instance}: {_where(file, line)} is not NAME=value")
            if line.key is not None:
                found[line.key] = line.value or ""
    return found


def _text(file: EnvironmentFile, instance: InstanceName) -> str:
    try:
        content = read_file(file.path, MAX_BYTES)
    except FileNotFoundError as error:
        if file.optional:
            return ""
        raise Terminal(f"cannot start {instance}: environment_from: {file.path} does not exist; create it, or mark it optional") from error
    except OSError as error:
        raise Terminal(f"cannot start {instance}: environment_from: cannot read {file.path}: {error.strerror}") from error
    except ValueError as error:
        raise Terminal(f"cannot start {instance}: environment_from: {file.path} {error}") from error
    return content.decode("utf-8", "surrogateescape")


def _where(file: EnvironmentFile, line: Binding) -> str:
    """Never the line itself: it may hold a secret."""
    return f"environment_from: line {line.original.line} of {file.path}"
