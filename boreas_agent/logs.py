"""Logs: one line a record, JSON or text, a constant message with structured fields.

A log that cannot be written must never hold up or end the agent: the apps matter more. So records are formatted
where they arise and written by a thread of their own behind a bounded queue: a full disk, a closed pipe or a reader
that stopped reading costs lines (they are counted, and the count is logged), not a blocked event loop.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from boreas_agent.clock import timestamp
from boreas_agent.errors import StartupError
from boreas_agent.settings import Log

QUEUED_LINES = 10_000
CLOSING_SECONDS = 2.0
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "warn": logging.WARNING, "error": logging.ERROR}
TALKATIVE = ("aiohttp", "alembic", "asyncio", "docker", "sqlalchemy", "urllib3")
"""Libraries whose news about themselves is of interest at level debug only."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


@contextmanager
def logging_to(settings: Log) -> Iterator[Callable[[Log], None]]:
    """Send all logs of this process where ``settings`` says until the block ends; raises StartupError where that can't be opened.

    Gives what changes level and format meanwhile.
    """
    writer = _Writer(_Output(settings.output))
    handler = _Enqueue(writer.lines)
    logging.raiseExceptions = False  # a line that cannot be formatted is lost; nothing is printed in its place
    logging.captureWarnings(True)
    change = partial(_configure, handler)
    change(settings)
    root = logging.getLogger()
    root.addHandler(handler)
    writer.start()
    try:
        yield change
    finally:
        root.removeHandler(handler)
        writer.stop()


def _configure(handler: logging.Handler, settings: Log) -> None:
    handler.setFormatter(_TextFormatter(traces=settings.level == "debug") if settings.format == "text" else _JsonFormatter())
    level = LEVELS[settings.level]
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    logging.getLogger().setLevel(level)


# --- getting them out ----------------------------------------------------------------------------


class _Output:
    """A file descriptor, written without buffers: nothing is left over that could hang or fail at the interpreter's exit."""

    def __init__(self, name: str) -> None:
        self._path = None if name in {"stdout", "stderr"} else Path(name)
        self._fd = {"stdout": 1, "stderr": 2}.get(name, -1)
        self._torn = False
        try:
            self._reopen_if_moved()
        except OSError as error:
            raise StartupError(f"cannot start: cannot write log.output {name}: {error.strerror}") from None

    def write(self, line: str) -> None:
        """Append one line. Raises OSError; a line cut short is closed before the next one begins."""
        self._reopen_if_moved()
        data = f"{chr(10) if self._torn else ''}{line}\n".encode(errors="backslashreplace")
        while data:
            self._torn = True
            data = data[os.write(self._fd, data) :]
        self._torn = False

    def _reopen_if_moved(self) -> None:
        """Follow the path when logrotate has moved the file away."""
        if self._path is None:
            return
        if self._fd >= 0:
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(self._path.stat(), os.fstat(self._fd)):
                    return
        old, self._fd = self._fd, os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._torn = False
        if old >= 0:
            os.close(old)


class _Enqueue(logging.Handler):
    """Formats a record where it arises and hands the line over; drops it where the writer is too far behind."""

    def __init__(self, lines: queue.Queue[str | None]) -> None:
        super().__init__()
        self._lines = lines
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # a record that cannot be shown must not fail the work that logged it
            return self.handleError(record)
        if self._lost and self._lines.qsize() < QUEUED_LINES // 2:
            lost, self._lost = self._lost, 0
            self._put(self.format(_lines_lost(lost)))
        return self._put(line)

    def _put(self, line: str) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost += 1


def _lines_lost(count: int) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": "log lines were lost", "lines": count, "name": __name__, "levelname": "WARNING"})


class _Writer:
    """The thread that writes. ``stop`` waits for what is queued, but not for an output that hangs."""

    def __init__(self, output: _Output) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue(QUEUED_LINES)
        self._output = output
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with contextlib.suppress(queue.Full):
            self.lines.put(None, timeout=CLOSING_SECONDS)
            self._thread.join(CLOSING_SECONDS)

    def _run(self) -> None:
        while (line := self.lines.get()) is not None:
            with contextlib.suppress(OSError):  # disk full, pipe closed: this line is lost, a later one may not be
                self._output.write(line)


# --- what a line looks like ----------------------------------------------------------------------


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was passed as ``extra``."""
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _at(record: logging.LogRecord) -> str:
    return timestamp(datetime.fromtimestamp(record.created, UTC))


class _JsonFormatter(logging.Formatter):
    """``{"ts": …, "level": …, "logger": …, "msg": …, fields…}``, with the traceback of an error in ``exc``."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {"ts": _at(record), "level": record.levelname.lower(), "logger": record.name, "msg": record.getMessage()}
        line |= {f"field_{key}" if key in line else key: value for key, value in _fields(record).items()}
        if record.exc_info:
            line["exc"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class _TextFormatter(logging.Formatter):
    """For people: ``TIME LEVEL logger: message key=value``. A traceback only where ``traces`` says so, else the error's own line."""

    def __init__(self, *, traces: bool) -> None:
        super().__init__()
        self._traces = traces

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            fields["error"] = f"{type(error).__name__}: {error}"
        words = [f"{_at(record)} {record.levelname:<7} {record.name}: {_shown(record.getMessage(), spaces=True)}"]
        words += [f"{key}={_shown(str(value), spaces=False)}" for key, value in fields.items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info and self._traces else line


def _shown(text: str, *, spaces: bool) -> str:
    """``text``, quoted where it could be mistaken for something else; what apps print must not forge lines."""
    plain = text.isprintable() and (spaces or not (set(text) & {" ", '"', "="} or not text))
    return text if plain else json.dumps(text, ensure_ascii=False)
