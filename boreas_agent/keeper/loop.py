"""The keeper's loop: one thread; agents ask, children report, children end, logs grow."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque

from boreas_agent.keeper.child import child
from boreas_agent.keeper.kernel import boot_id, boottime, log, start_ticks, sync
from boreas_agent.keeper.logs import bound, size_of
from boreas_agent.keeper.peers import Lost, Peer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

GRACE = 2.0  # seconds that an idle keeper waits for an agent before it ends
WATCHED_LOGS = 200  # of runs that ended
WATCHFUL = 2.0  # seconds after a start in which the logs are looked at often: a new program may write without end
QUICK_BYTES = 1024 * 1024  # a log that grew by more since the last look is looked at again soon
QUIET = 0.003  # seconds without an event before chores are done, so that they delay nobody who waits
PATIENCE = 0.05  # seconds that a chore waits for such quiet at most
TICK = 1.0  # seconds between two looks at the size of the logs
IDLE_TICK = 10.0  # the same without runs: what a run left behind may still write
HURRY = 0.05  # the same where a log has just been cut: its writer is quick
STUCK = 30.0  # seconds from request to exec, after which the child is given up
MAX_PEERS = 64
IN_FLIGHT = 4  # children between request and exec at a time; more only compete for the processors
OWN_LOG_MAX = 1024 * 1024


class Child:
    """A process of ours: the spare, one on its way to exec (``request`` set), or a run (``claim`` set)."""

    __slots__ = ("cgroup", "channel", "claim", "failure", "peer", "pid", "request", "said", "since")

    def __init__(self, pid: int, channel: socket.socket, cgroup: str | None) -> None:
        self.pid = pid
        self.cgroup = cgroup
        self.channel = channel
        self.said = b""
        self.request: dict[str, Any] = {}
        self.peer: Peer | None = None
        self.claim: dict[str, Any] | None = None
        self.failure = ""
        self.since = 0.0


class Keeper:
    """Knows its peers, its children and their logs. Every handler is short."""

    def __init__(self, listener: socket.socket, own_log: str, cgroups: str) -> None:
        self.cgroups = cgroups
        self.forks = 0
        self.identity = (os.getpid(), start_ticks())
        self.boot = boot_id()
        self.peers: set[Peer] = set()
        self.queue: deque[tuple[Peer, dict[str, Any], bytes]] = deque()
        self.children: dict[int, Child] = {}
        self.spare: Child | None = None
        self.spare_after = 0.0
        self.in_flight = 0
        self.unsynced: dict[str, None] = {}
        self.unwritten: list[tuple[str, int, dict[str, Any]]] = []
        self.logs: dict[str, int] = {own_log: OWN_LOG_MAX}
        self.sizes: dict[str, int] = {}
        self.watchful_until = 0.0
        self.next_tick = 0.0
        self.chore_since = 0.0
        self.idle_since = time.monotonic()
        self.leaving = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self.accept)

    # --- the loop

    def serve(self) -> None:
        """Until there is no run, and nobody connected for GRACE seconds (or SIGTERM said to leave)."""
        self.watch_signals()
        while not self.finished():
            ready = self.selector.select(self.timeout())
            for key, events in ready:
                self.guarded(key.data, key.fileobj, events)
            now = time.monotonic()
            if not ready or (self.chore_since and now - self.chore_since > PATIENCE):
                self.guarded(self.chore)
            if now >= self.next_tick:
                self.next_tick = now + (HURRY if self.guarded(self.tick) or now < self.watchful_until else TICK)
        signal.set_wakeup_fd(-1)
        if self.spare:
            self.discard(self.spare)
            os.waitpid(self.spare.pid, 0)
            self.tidy(self.spare)

    def guarded(self, handler: Callable[..., Any], *args: Any) -> Any:
        """One thing that goes wrong must not take the parent of all the others down."""
        try:
            return handler(*args)
        except Exception:  # noqa: BLE001
            sys.excepthook(*sys.exc_info())
            return None

    def watch_signals(self) -> None:
        """Signals arrive as bytes on a socket of the loop."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        self.selector.register(ours, selectors.EVENT_READ, self.signalled)

    def signalled(self, sock: socket.socket, _events: int) -> None:
        """A child ended, or somebody wants us to leave: then the last run is waited for, no app is taken along."""
        if signal.SIGTERM in sock.recv(4096):
            self.leaving = True
        self.reap()

    def finished(self) -> bool:
        """Nothing to keep, nothing to write, nobody to wait for."""
        if self.runs or self.queue or self.unwritten or self.unsynced:
            return False
        return self.leaving or (not self.peers and time.monotonic() - self.idle_since > GRACE)

    @property
    def runs(self) -> int:
        """Children that are, or are becoming, a program."""
        return len(self.children) - (self.spare is not None)

    def timeout(self) -> float | None:
        """How long the loop may wait for an event."""
        now = time.monotonic()
        if self.unsynced or self.wants_spare(now):
            self.chore_since = self.chore_since or now
            return QUIET
        if self.runs or self.unwritten or self.spare is None:
            return max(0.0, self.next_tick - now)
        return IDLE_TICK if self.peers else max(0.0, self.idle_since + GRACE - now) + 0.01

    def wants_spare(self, now: float) -> bool:
        """Whether the next child should be forked ahead now."""
        return self.spare is None and not self.in_flight and not self.leaving and now >= self.spare_after

    def chore(self) -> None:
        """What must be done, but not while anybody waits."""
        self.chore_since = 0.0
        if self.wants_spare(time.monotonic()):
            self.spare = self.fork()
        elif self.unsynced:
            path = next(iter(self.unsynced))
            del self.unsynced[path]
            with contextlib.suppress(OSError):
                sync(path)

    def tidy(self, dead: Child) -> bool:
        """Delete the cgroup of a child that ended; whether nothing is left of it. One that is in use is the agent's to clear."""
        try:
            os.rmdir(dead.cgroup or "")
        except OSError:
            return False
        return True

    def tick(self) -> bool:
        """Bound the logs, finish what could not be done; whether to look again soon."""
        for _ in range(len(self.unwritten)):
            self.write_exit(*self.unwritten.pop(0))
        for slow in self.children.values():
            if slow.request and slow.channel.fileno() >= 0 and time.monotonic() - slow.since > STUCK:
                os.kill(slow.pid, signal.SIGKILL)
        self.forget_logs()
        soon = False
        for path, limit in self.logs.items():
            cut, size = bound(path, limit)
            soon = soon or cut or size - self.sizes.get(path, 0) > QUICK_BYTES
            self.sizes[path] = size
        return soon

    def forget_logs(self) -> None:
        """Of runs that ended, the newest few logs are still watched: a descendant may write on."""
        used = {child.request[key] for child in self.children.values() if child.request for key in ("stdout", "stderr")}
        unused = [path for path in list(self.logs)[1:] if path not in used]  # the first is our own
        for path in unused[:-WATCHED_LOGS]:
            del self.logs[path]
            self.sizes.pop(path, None)

    # --- agents

    def accept(self, listener: socket.socket, _events: int) -> None:
        """Greet an agent."""
        sock, _ = listener.accept()
        peer = Peer(sock)
        if not peer.allowed or len(self.peers) >= MAX_PEERS:
            sock.close()
            return
        self.peers.add(peer)
        self.selector.register(sock, selectors.EVENT_READ, lambda _sock, events: self.ready(peer, events))
        self.send(peer, {"keeper": self.identity})

    def ready(self, peer: Peer, events: int) -> None:
        """The agent has sent something, or takes something again."""
        try:
            if events & selectors.EVENT_WRITE:
                peer.flush()
                self.watch_output(peer)
            if events & selectors.EVENT_READ:
                self.queue.extend((peer, request, line) for request, line in peer.receive())
        except Lost:
            self.drop(peer)
        self.advance()

    def send(self, peer: Peer, message: Mapping[str, Any]) -> None:
        """Tell one agent; one that does not listen is dropped."""
        try:
            peer.send(message)
            self.watch_output(peer)
        except Lost:
            self.drop(peer)

    def watch_output(self, peer: Peer) -> None:
        """Wait for room where something is left to send."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if peer.outbox else 0)
        key = self.selector.get_key(peer.sock)
        if key.events != events:
            self.selector.modify(peer.sock, events, key.data)

    def drop(self, peer: Peer) -> None:
        """The connection has ended."""
        if peer in self.peers:
            self.peers.remove(peer)
            self.selector.unregister(peer.sock)
            peer.sock.close()
            self.idle_since = time.monotonic()

    # --- children

    def fork(self) -> Child:
        """A child that waits for its request."""
        ours, theirs = socket.socketpair()
        gc.freeze()  # a collection in the child would copy every page
        self.forks += 1
        cgroup = f"{self.cgroups}/{'.'.join(map(str, self.identity))}.{self.forks}" if self.cgroups else None
        pid = os.fork()
        if pid == 0:
            try:
                child(theirs.detach(), self.identity, self.boot, cgroup)
            finally:
                os._exit(127)  # whatever happened: there must not be a second keeper in its place
        theirs.close()
        ours.settimeout(2.0)
        forked = self.children[pid] = Child(pid, ours, cgroup)
        return forked

    def advance(self) -> None:
        """Hand out what was asked for, except by those who no longer wait for it."""
        while self.queue and self.in_flight < IN_FLIGHT:
            peer, request, line = self.queue.popleft()
            if not peer.gone():
                self.hand_over(peer, request, line)

    def hand_over(self, peer: Peer, request: dict[str, Any], line: bytes) -> None:
        """Let the spare, or a new child, become what was asked for."""
        taken, self.spare = self.spare or self.fork(), None
        try:
            taken.channel.sendall(line + b"\n")
        except OSError:  # somebody killed or stopped the spare
            self.discard(taken)
            taken = self.fork()
            taken.channel.sendall(line + b"\n")
        taken.request, taken.peer, taken.since = request, peer, time.monotonic()
        taken.channel.setblocking(False)
        self.in_flight += 1
        for path in (request["stdout"], request["stderr"]):
            self.logs.pop(path, None)  # the newest come last
        self.watchful_until = taken.since + WATCHFUL
        self.next_tick = min(self.next_tick, taken.since + HURRY)
        self.logs |= {request["stdout"]: request["log_max"], request["stderr"]: request["log_max"]}
        self.selector.register(taken.channel, selectors.EVENT_READ, lambda _sock, _events: self.heard(taken))

    def discard(self, useless: Child) -> None:
        """End a child that is no run."""
        if useless.pid in self.children:
            os.kill(useless.pid, signal.SIGKILL)
        useless.channel.close()

    def heard(self, speaker: Child) -> None:
        """Collect what a child reports until it has executed its program or died: both close the channel."""
        try:
            while data := speaker.channel.recv(65536):
                speaker.said += data
        except BlockingIOError:
            return
        except OSError as error:
            log(f"cannot hear process {speaker.pid}: {error.strerror}")
        self.selector.unregister(speaker.channel)
        speaker.channel.close()
        self.in_flight -= 1
        self.answer(speaker)
        self.advance()

    def answer(self, speaker: Child) -> None:
        """Answer the request that the child was given."""
        said: dict[str, Any] = {}
        for line in speaker.said.splitlines():
            said |= json.loads(line)
        speaker.said = b""
        speaker.claim = said.get("claim") or self.claim_of(speaker)
        speaker.failure = said.get("failed") or said.get("error", "")
        answer: dict[str, Any] = {"error": said.get("error", "cannot start the process: it was killed before its first instruction")}
        if speaker.claim:
            answer = {"claim": speaker.claim}
            if not speaker.request["durable"]:
                folder, run = speaker.request["folder"], speaker.request["run"]
                self.sync_later(f"{folder}/{run}.claim", folder, *speaker.request["sync"])
        elif "claimed" in said:
            answer = {"claimed": True}
        if speaker.peer in self.peers:
            self.send(speaker.peer, {"id": speaker.request["id"]} | answer)

    def claim_of(self, speaker: Child) -> dict[str, Any] | None:
        """What the child claimed but was killed before saying."""
        try:
            with open(f"{speaker.request['folder']}/{speaker.request['run']}.claim", "rb") as file:
                found: dict[str, Any] = json.load(file)
        except (OSError, ValueError):
            return None
        return found if found["pid"] == speaker.pid and tuple(found["keeper"]) == self.identity else None

    def reap(self) -> None:
        """Take note of every child that ended; orphans of our runs, which we inherit, need no more than that."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self.children:
                self.guarded(self.ended, self.children.pop(pid), status)

    def ended(self, dead: Child, status: int) -> None:
        """Tell the agents, who can act on it while it is written down and made durable."""
        self.idle_since = time.monotonic()
        clean = self.tidy(dead)
        if dead is self.spare:
            dead.channel.close()
            self.spare, self.spare_after = None, time.monotonic() + PATIENCE
            return
        if dead.request and dead.channel.fileno() >= 0:
            self.heard(dead)
        if not dead.claim:
            return
        folder, run, out, err = (dead.request[key] for key in ("folder", "run", "stdout", "stderr"))
        data = {"status": status, "error": dead.failure, "wall": time.time(), "boottime": boottime()}
        data |= {"stdout": size_of(out), "stderr": size_of(err)}
        for peer in tuple(self.peers):
            self.send(peer, {"exit": folder, "run": run, "data": data, "clean": clean})
        self.write_exit(folder, run, data)

    def sync_later(self, *paths: str) -> None:
        """Make files and folders durable, in this order, when nobody waits."""
        for path in paths:
            self.unsynced.pop(path, None)
            self.unsynced[path] = None

    def write_exit(self, folder: str, run: int, data: dict[str, Any]) -> None:
        """Once the disk has room, if it has none."""
        draft, name = f"{folder}/.{run}.exit", f"{folder}/{run}.exit"
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(json.dumps(data).encode())
            os.rename(draft, name)
            self.sync_later(name, folder)
        except FileNotFoundError:
            log(f"cannot write {name}: the folder is gone")
        except OSError as error:
            log(f"cannot write {name}, trying again: {error.strerror}")
            self.unwritten.append((folder, run, data))
