"""Sends one file to whoever asks, whatever for, as fast as the kernel can: ``python -m benchmarks.references.file_server PORT FILE``."""

from __future__ import annotations

import os
import socket
import sys
import threading
from pathlib import Path


def serve(port: int, path: str) -> None:
    """For ever."""
    with socket.create_server(("127.0.0.1", port)) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_send, args=(connection, path), daemon=True).start()


def _send(connection: socket.socket, path: str) -> None:
    with connection, Path(path).open("rb") as file:
        request = b""
        while b"\r\n\r\n" not in request:
            received = connection.recv(65536)
            if not received:
                return
            request += received
        size, sent = os.fstat(file.fileno()).st_size, 0
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode())
        while sent < size:
            sent += os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
