"""The runner's loop: one thread; the agent asks, commands write, commands end, time runs out."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import time

from boreas_agent.keeper.child import Refused, execute, set_out
from boreas_agent.keeper.kernel import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, PR_SET_PDEATHSIG, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

TAIL_BYTES = 4096
_ALARM_AFTER = 5  # seconds after its time at which a command ends itself, where nobody else is left to do so
_LAST_WORDS = 2.0  # seconds that a killed command gets to disappear before the runner ends without it
_ABOVE = 16  # descriptors of ours are kept out of the way of those that ``execute`` arranges


class Command:
    """One command: the child that became it, what it writes, and until when it may run."""

    __slots__ = ("answer", "failure", "number", "output", "pid", "reader", "said", "until")

    def __init__(self, number: int, pid: int, reader: int, failure: int, until: float) -> None:
        self.number = number
        self.pid = pid
        self.reader = reader
        self.failure = failure
        self.until = until
        self.output = b""
        self.said = b""
        self.answer: dict[str, Any] = {}

    def kill(self) -> None:
        """The process group; what has left it is an orphan sooner or later."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class Runner:
    """Knows the commands that run; ends when the agent does."""

    def __init__(self, agent: socket.socket) -> None:
        self.agent = agent
        self.pending = b""
        self.commands: dict[int, Command] = {}  # by pid
        self.selector = selectors.DefaultSelector()
        self.selector.register(agent, selectors.EVENT_READ, self.asked)
        self.wake, signalled = socket.socketpair()
        self.wake.setblocking(False)
        signalled.setblocking(False)
        signal.set_wakeup_fd(signalled.detach(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(self.wake, selectors.EVENT_READ, self.child_ended)
        self.over = False

    def serve(self) -> None:
        """Until the agent hangs up."""
        while not self.over:
            times = [command.until for command in self.commands.values() if not command.answer]
            timeout = max(0.0, min(times) - time.monotonic()) if times else None
            for key, _ in self.selector.select(timeout):
                key.data()
            now = time.monotonic()
            for command in [one for one in self.commands.values() if not one.answer and one.until <= now]:
                command.answer["late"] = True
                command.kill()
        self.end_all()

    def end_all(self) -> None:
        """Leave nothing behind."""
        deadline = time.monotonic() + _LAST_WORDS
        while time.monotonic() < deadline:
            for command in self.commands.values():
                command.kill()
            self.reap()
            if not self.end_orphans() and not self.commands:
                return
            time.sleep(0.005)

    # --- the agent

    def asked(self) -> None:
        """Requests, or the end of the agent."""
        try:
            data = self.agent.recv(65536)
        except ConnectionResetError:
            data = b""
        self.over = not data
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            if "cancel" in request:
                for command in [one for one in self.commands.values() if one.number == request["cancel"]]:
                    command.kill()
            else:
                self.start(request)

    def tell(self, answer: dict[str, Any]) -> None:
        """An agent that has gone is noticed where it is read from."""
        with contextlib.suppress(OSError):
            self.agent.sendall(json.dumps(answer).encode() + b"\n")

    # --- commands

    def start(self, request: dict[str, Any]) -> None:
        """Fork; the child becomes the command or says why not."""
        pipes: list[int] = []
        try:
            pipes += os.pipe()
            pipes += os.pipe()
            pid = os.fork()
        except OSError as error:
            self.tell({"id": request["id"], "error": f"cannot start the command: {error.strerror}"})
            for fd in pipes:
                os.close(fd)
            return
        reader, output, failure, said = pipes
        if not pid:
            become(request, output, said)
        os.set_blocking(reader, False)
        os.set_blocking(failure, False)
        command = Command(request["id"], pid, reader, failure, time.monotonic() + request["seconds"])
        self.commands[pid] = command
        self.selector.register(reader, selectors.EVENT_READ, lambda: self.read(command))
        os.close(output)
        os.close(said)

    def read(self, command: Command) -> None:
        """Keep the last of what it writes; one that has ended meanwhile has no descriptor any more."""
        if self.commands.get(command.pid) is not command:
            return
        with contextlib.suppress(BlockingIOError):
            data = os.read(command.reader, 65536)
            command.output = (command.output + data)[-TAIL_BYTES:]
            if not data:
                self.selector.unregister(command.reader)

    def child_ended(self) -> None:
        """Answer for it, and end what it has left behind."""
        with contextlib.suppress(BlockingIOError):
            self.wake.recv(4096)
        self.reap()
        self.end_orphans()

    def reap(self) -> None:
        """Collect the dead; orphans too. As long as one is not collected, its number is nobody else's."""
        with contextlib.suppress(ChildProcessError):
            while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
                command = self.commands.pop(dead.si_pid, None)
                if command is not None:
                    command.kill()  # of its process group something may still live
                _, status = os.waitpid(dead.si_pid, 0)
                if command is not None:
                    self.finish(command, status)

    def finish(self, command: Command, status: int) -> None:
        """Its last words, and its status."""
        with contextlib.suppress(KeyError, ValueError):
            self.selector.unregister(command.reader)
        for fd in (command.reader, command.failure):
            with contextlib.suppress(BlockingIOError):
                data = os.read(fd, 65536)
                if fd == command.reader:
                    command.output = (command.output + data)[-TAIL_BYTES:]
                else:
                    command.said = data
            os.close(fd)
        answer: dict[str, Any] = {"id": command.number}
        if command.said:
            answer["error"] = command.said.decode("utf-8", "replace")
        else:
            answer |= {"status": status, "output": command.output.decode("utf-8", "replace"), **command.answer}
        self.tell(answer)

    def end_orphans(self) -> bool:
        """Kill children of ours that are no command, unless they belong to the session of one that runs; whether there were any."""
        found = False
        for pid in children():
            if pid in self.commands:
                continue
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) not in self.commands:
                    os.kill(pid, signal.SIGKILL)
                    found = True
        return found


def children() -> list[int]:
    """Of this process, by the kernel's own list; where it has none, nobody is an orphan."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def become(request: dict[str, Any], output: int, said: int) -> NoReturn:
    """In the child: execute the command."""
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        said = fcntl.fcntl(said, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
        set_out()
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.alarm(int(request["seconds"]) + _ALARM_AFTER)
        execute(request)
    except Refused as error:
        os.write(said, str(error).encode("utf-8", "replace"))
    except BaseException as error:  # noqa: BLE001 - a child must never return into the loop
        os.write(said, f"cannot start the command: {error!r}".encode("utf-8", "replace"))
    os._exit(127)


def main() -> None:
    """Serve the socket that is standard input."""
    agent = socket.socket(fileno=fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _ABOVE))
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_NAME, b"boreas-runner")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    Runner(agent).serve()
