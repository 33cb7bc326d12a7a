"""The load generator, a process of its own: many connections, each sending its next request when it has its answer.

``python -m benchmarks.load PORT CONNECTIONS SECONDS RUN`` prints the answers per second. It does so little per answer
that the server, not this, is the one that is busy.
"""

from __future__ import annotations

import selectors
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks.requests import new_versions
from benchmarks.wire import Connection


def answers_per_second(port: int, connections: int, seconds: float, run: str) -> float:
    """Raises RuntimeError at the first answer that is not that of a newly recorded revision."""
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for number in range(connections):
            connection = stack.enter_context(Connection(port))
            requests = new_versions(f"load-{number}", run)
            selector.register(connection, selectors.EVENT_READ, requests)
            connection.send(next(requests))
        answers, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            answers += _exchange(selector)
        return answers / spent


def _exchange(selector: selectors.BaseSelector) -> int:
    ready = selector.select()
    for key, _ in ready:
        connection, requests = key.fileobj, key.data
        assert isinstance(connection, Connection)
        assert isinstance(requests, Iterator)
        status, answer = connection.receive()
        if status != 200 or b'"changed": true' not in answer.replace(b'"changed":true', b'"changed": true'):
            raise RuntimeError(f"expected a new revision, but the server answered {status} {answer[:500]!r}")
        connection.send(next(requests))
    return len(ready)


if __name__ == "__main__":
    print(answers_per_second(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]))
