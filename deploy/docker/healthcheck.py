"""The image's HEALTHCHECK: asks the agent for /v1/health, wherever it listens.

Which address and port that is may have been said by a flag, a variable or a file; the kernel knows it in any case. Standard
library alone, and little of it: this runs every 30 seconds.
"""

import os
import socket
import sys

LISTEN = "0A"
SECONDS = 8.0


def agent():
    """The pid of the agent: a child of the init."""
    for pid in _read("/proc/1/task/1/children").split():
        if b"boreas-agent" in _read(f"/proc/{pid.decode()}/cmdline"):
            return pid.decode()
    return "1"  # started without an init


def addresses(pid):
    """Where it listens: (address, port)."""
    sockets = set()
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            sockets.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
        except OSError:
            continue
    for file, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in _read(f"/proc/{pid}/net/{file}").decode().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTEN and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                yield _address(family, address), int(port, 16)


def _address(family, text):
    """The kernel shows words of the machine's own byte order; what listens everywhere is asked at home."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    raw = b"".join(words) if sys.byteorder == "little" else bytes.fromhex(text)
    if any(raw):
        return socket.inet_ntop(family, raw)
    return "127.0.0.1" if family == socket.AF_INET else "::1"


def answer(address, port):
    """The first line of what it answers, in plain text or, where it speaks TLS, through that; it is known who that is."""
    return _ask(address, port, lambda plain: plain) or _ask(address, port, _encrypted)


def _encrypted(plain):
    import ssl  # only where it is needed

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(plain)


def _ask(address, port, wrap):
    try:
        with socket.create_connection((address, port), SECONDS) as plain, wrap(plain) as connection:
            connection.sendall(b"GET /v1/health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            line = connection.makefile("rb").readline(1000)
    except OSError as error:
        return f"{address} port {port}: {error}" if wrap is _encrypted else ""
    text = line.decode("ascii", "replace").strip()
    return text if " 400 " not in text or wrap is _encrypted else ""


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def main():
    """Exit status 0 where the agent says that it is healthy."""
    said = "nobody listens"
    for address, port in addresses(agent()):
        said = answer(address, port)
        if " 200 " in said:
            break
    print(said)
    return 0 if " 200 " in said else 1


if __name__ == "__main__":
    sys.exit(main())
