"""The keeper's loop: one thread; agents ask, children report, children end, logs grow."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import selectors
import signal
import socket
import sys
import time
from collections import deque

from boreas_agent.keeper.child import child
from boreas_agent.keeper.kernel import boot_id, boottime, log, oom_kills, start_ticks, sync
from boreas_agent.keeper.logs import Quiet, bound, note, size_of
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
TICK = 1.0  # seconds between two looks at the size of the logs that are written to
IDLE_TICK = 10.0  # the same without such logs, or without runs: what a run left behind may still write
CALM = 10.0  # seconds without growth before the kernel watches a log: some file systems count its blocks late
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

    @property
    def limits(self) -> list[str]:
        """The cgroups that limit the run."""
        return [f"{group['path']}.{self.request['run']}" for group in self.request["groups"]] if self.request else []


class Keeper:
    """Knows its peers, its children and their logs. Every handler is short."""

    def __init__(self, listener: socket.socket, own_log: str, cgroups: str) -> None:
        self.folder = own_log.rpartition("/")[0]
        self.cgroups = cgroups
        self.forks = 0
        self.identity = (os.getpid(), start_ticks())
        self.boot = boot_id()
        self.peers: set[Peer] = set()
        self.queue: deque[tuple[Peer, bytes]] = deque()
        self.children: dict[int, Child] = {}
        self.spare: Child | None = None
        self.spare_after = 0.0
        self.in_flight = 0
        self.unsynced: dict[str, None] = {}
        self.told: deque[tuple[Child, dict[str, Any]]] = deque()
        self.unwritten: list[tuple[Child, dict[str, Any]]] = []
        self.own_log = own_log
        self.logs: dict[str, int] = {own_log: OWN_LOG_MAX}
        self.sizes: dict[str, int] = {}
        self.grown: dict[str, float] = {}
        self.quiet = Quiet()
        self.channels = select.epoll()
        self.speakers: dict[int, Child] = {}
        self.watchful_until = 0.0
        self.next_tick = 0.0
        self.chore_since = 0.0
        self.idle_since = time.monotonic()
        self.leaving = False
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        self.selector.register(self.channels, selectors.EVENT_READ, self.closed)
        if self.quiet.fd >= 0:
            self.selector.register(self.quiet.fd, selectors.EVENT_READ, self.written)
        self.voice: socket.socket | None = None

    # --- the loop

    def serve(self) -> None:
        """Until there is no run, and nobody connected for GRACE seconds (or SIGTERM said to leave)."""
        self.watch_signals()
        self.hear_itself()
        while not self.finished():
            ready = self.selector.select(self.timeout())
            for key, events in ready:
                self.guarded(key.data, key.fileobj, events)
            now = time.monotonic()
            if not ready or (self.chore_since and now - self.chore_since > PATIENCE):
                self.guarded(self.chore)
            if now >= self.next_tick:
                self.next_tick = now + (HURRY if self.guarded(self.tick) or now < self.watchful_until else self.pace())
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

    def hear_itself(self) -> None:
        """One more agent is the keeper itself, which asks for nothing."""
        self.voice, heard = socket.socketpair()
        peer = Peer(heard)
        self.selector.register(heard, selectors.EVENT_READ, lambda _sock, events: self.ready(peer, events))

    def signalled(self, sock: socket.socket, _events: int) -> None:
        """A child ended, or somebody wants us to leave: then the last run is waited for, no app is taken along."""
        if signal.SIGTERM in sock.recv(4096):
            self.leaving = True
        self.reap()

    def finished(self) -> bool:
        """Nothing to keep, nothing to write, nobody to wait for."""
        if self.runs or self.queue or self.told or self.unwritten or self.unsynced:
            return False
        return self.leaving or (not self.peers and time.monotonic() - self.idle_since > GRACE)

    @property
    def runs(self) -> int:
        """Children that are, or are becoming, a program."""
        return len(self.children) - (self.spare is not None)

    def timeout(self) -> float | None:
        """How long the loop may wait for an event."""
        now = time.monotonic()
        if self.told or self.unsynced or self.wants_spare(now):
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
        while self.told:
            self.write_exit(*self.told.popleft())
        if self.wants_spare(time.monotonic()):
            self.spare = self.fork()
            if self.voice:
                self.voice.send(b"\n")  # rehearse: since the fork, every page that is written to has to be copied the first time
        elif self.unsynced:
            path = next(iter(self.unsynced))
            del self.unsynced[path]
            with contextlib.suppress(OSError):
                sync(path)

    def tidy(self, dead: Child) -> bool:
        """Delete the cgroups of a child that ended; whether nothing is left of it. One that is in use is the agent's to clear."""
        clean = bool(dead.cgroup)
        for path in (dead.cgroup, *dead.limits):
            try:
                os.rmdir(path or "")
            except FileNotFoundError:
                continue
            except OSError:
                clean = False
        return clean

    def pace(self) -> float:
        """Seconds between two looks, where there is no hurry."""
        loud = any(path not in self.quiet and os.path.exists(path) for path in self.logs)
        return TICK if self.in_flight or self.unwritten or loud else IDLE_TICK

    def written(self, _fd: int, _events: int) -> None:
        """Something has come into logs that were quiet: when, is noted soon, and whether it is much."""
        for _ in self.quiet.ended():
            self.next_tick = min(self.next_tick, time.monotonic() + HURRY)

    def tick(self) -> bool:
        """Bound the logs, finish what could not be done; whether to look again soon."""
        for _ in range(len(self.unwritten)):
            self.write_exit(*self.unwritten.pop(0))
        for slow in self.children.values():
            if slow.request and slow.channel.fileno() >= 0 and time.monotonic() - slow.since > STUCK:
                os.kill(slow.pid, signal.SIGKILL)
        self.forget_logs()
        now = time.monotonic()
        soon, settled = False, now >= self.watchful_until
        for path, limit in self.logs.items():
            if path in self.quiet:
                continue
            cut, size = bound(path, limit)
            grown = size - self.sizes.get(path, 0)
            soon = soon or cut or grown > QUICK_BYTES
            self.note(path, size)
            if grown:
                self.grown[path] = now
            if settled and now - self.grown.get(path, 0.0) > CALM and self.quiet.add(path) and size_of(path) != size:
                self.quiet.discard(path)
        return soon

    def note(self, path: str, size: int) -> None:
        """When the log had come to this size: what was written since the last look was written before now."""
        if size != self.sizes.get(path, 0) and path != self.own_log:
            note(path, size)
        self.sizes[path] = size

    def forget_logs(self) -> None:
        """Of runs that ended, the newest few logs are still watched: a descendant may write on."""
        used = {child.request[key] for child in self.children.values() if child.request for key in ("stdout", "stderr")}
        unused = [path for path in list(self.logs)[1:] if path not in used]  # the first is our own
        for path in unused[:-WATCHED_LOGS]:
            del self.logs[path]
            self.sizes.pop(path, None)
            self.grown.pop(path, None)
            self.quiet.discard(path)

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
                self.queue.extend((peer, line) for line in peer.receive())
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
                child(theirs.detach(), self.identity, self.boot, cgroup, self.folder)
            finally:
                os._exit(127)  # whatever happened: there must not be a second keeper in its place
        theirs.close()
        ours.settimeout(2.0)
        forked = self.children[pid] = Child(pid, ours, cgroup)
        return forked

    def advance(self) -> None:
        """Hand out what was asked for, except by those who no longer wait for it; an empty line asks for nothing."""
        while self.queue and self.in_flight < IN_FLIGHT:
            peer, line = self.queue.popleft()
            if not peer.gone() and line:
                self.hand_over(peer, line)

    def hand_over(self, peer: Peer, line: bytes) -> None:
        """Let the spare, or a new child, become what was asked for; we read the request while it is at work."""
        taken, self.spare = self.spare or self.fork(), None
        try:
            taken.channel.sendall(line + b"\n")
        except OSError:  # somebody killed or stopped the spare
            self.discard(taken)
            taken = self.fork()
            taken.channel.sendall(line + b"\n")
        os.sched_yield()  # it is awake, but mostly on the processor that we are on
        try:
            request: dict[str, Any] = json.loads(line)
        except ValueError:  # the child cannot read it either
            self.discard(taken)
            self.drop(peer)
            return
        taken.request, taken.peer, taken.since = request, peer, time.monotonic()
        taken.channel.setblocking(False)
        self.in_flight += 1
        for path in (request["stdout"], request["stderr"]):
            self.logs.pop(path, None)  # the newest come last
            self.quiet.discard(path)  # it may be another file by now
        self.watchful_until = taken.since + WATCHFUL
        self.next_tick = min(self.next_tick, taken.since + HURRY)
        self.logs |= {request["stdout"]: request["log_max"], request["stderr"]: request["log_max"]}
        self.speakers[taken.channel.fileno()] = taken
        self.channels.register(taken.channel, select.EPOLLRDHUP)  # not for what it says: whoever is woken by that is in its way

    def discard(self, useless: Child) -> None:
        """End a child that is no run."""
        if useless.pid in self.children:
            os.kill(useless.pid, signal.SIGKILL)
        useless.channel.close()

    def closed(self, _channels: select.epoll, _events: int) -> None:
        """Children have executed their programs, or died."""
        for fd, _ in self.channels.poll(0):
            self.heard(self.speakers[fd])

    def heard(self, speaker: Child, *, over: bool = False) -> None:
        """Collect what a child reports until it has executed its program or died: both close the channel.

        ``over``: it has died, and says no more, though its stand-in may have the channel open for another moment.
        """
        if speaker.channel.fileno() < 0:  # its end was seen a moment ago, among the same events
            return
        try:
            while data := speaker.channel.recv(65536):
                speaker.said += data
        except BlockingIOError:
            if not over:
                return
        except OSError as error:
            log(f"cannot hear process {speaker.pid}: {error.strerror}")
        self.channels.unregister(speaker.channel)
        del self.speakers[speaker.channel.fileno()]
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
        """What the child has claimed, as it is on record."""
        try:
            return self.recorded(speaker)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def recorded(self, speaker: Child) -> dict[str, Any] | None:
        """The same; None where another has claimed that run. Raises what reading raises."""
        with open(f"{speaker.request['folder']}/{speaker.request['run']}.claim", "rb") as file:
            found: dict[str, Any] = json.load(file)
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
        """Tell the agents, who mostly ask for the next run at once; then write it down, once nobody waits where it can wait."""
        self.idle_since = time.monotonic()
        oom = any(oom_kills(path) for path in (dead.cgroup, *dead.limits) if path)
        clean = self.tidy(dead)
        if dead is self.spare:
            dead.channel.close()
            self.spare, self.spare_after = None, time.monotonic() + PATIENCE
            return
        if dead.request:
            self.heard(dead, over=True)
        if not dead.claim:
            return
        folder, run = dead.request["folder"], dead.request["run"]
        data = {"status": status, "error": dead.failure, "wall": time.time(), "boottime": boottime(), "oom": oom}
        if dead.request["durable"]:  # of a script somebody will want to know what it wrote last
            data |= {"stdout": size_of(dead.request["stdout"]), "stderr": size_of(dead.request["stderr"])}
        for path in (dead.request["stdout"], dead.request["stderr"]):
            self.note(path, bound(path, dead.request["log_max"])[1])  # the next tick may be a while off
        for peer in tuple(self.peers):
            self.send(peer, {"exit": folder, "run": run, "data": data, "clean": clean})
        if self.peers and not dead.request["durable"]:
            self.told.append((dead, data))
        else:
            self.write_exit(dead, data)

    def sync_later(self, *paths: str) -> None:
        """Make files and folders durable, in this order, when nobody waits."""
        for path in paths:
            self.unsynced.pop(path, None)
            self.unsynced[path] = None

    def write_exit(self, dead: Child, data: dict[str, Any]) -> None:
        """Once the disk has room, if it has none. Never beside a claim of another: who was told may have made the folder anew."""
        folder, run = dead.request["folder"], dead.request["run"]
        draft, name = f"{folder}/.{run}.exit", f"{folder}/{run}.exit"
        try:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # nobody can read it
                if not self.recorded(dead):
                    return
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(json.dumps(data).encode())
            os.rename(draft, name)
            self.sync_later(name, folder)
        except FileNotFoundError:
            return  # nobody asks about that folder any more
        except OSError as error:
            log(f"cannot write {name}, trying again: {error.strerror}")
            self.unwritten.append((dead, data))
            self.next_tick = min(self.next_tick, time.monotonic() + TICK)
