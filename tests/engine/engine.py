"""A Docker engine of our own: private folders, socket, bridge and cgroup, started and stopped by the tests.

It never touches an engine that is installed on the machine, nor the firewall: published ports work through the
engine's userland proxy. Each such engine has one of a few bridges with fixed addresses to itself (a lock), so that several
test runs can go on at once on a machine.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import docker

from tests.waiting import eventually

IMAGE = "boreas-test/base:1"
ENTRY_IMAGE = "boreas-test/entry:1"
"""Has ENTRYPOINT ["/bin/echo", "entrypoint"] and CMD ["cmd"]."""
SERVE = ("/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done")
"""Runs until it is told to stop: the first process of a container ignores SIGTERM unless it handles it."""

_LOCKS = Path(tempfile.gettempdir())
_BRIDGES = 8
"""Named boreas-test0 and so on, with the addresses 10.231.77.1/24 and so on."""
_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
_NEEDED = {
    "dockerd": "docker.io",
    "busybox": "busybox-static",
    "docker-registry": "docker-registry",
    "ip": "iproute2",
    "setpriv": "util-linux",
}


def why_not() -> str | None:
    """Why no engine can be had here, or None."""
    if os.geteuid() != 0:
        return "starting a Docker engine needs root"
    missing = [package for program, package in _NEEDED.items() if shutil.which(program, path=_PATH) is None]
    return f"not installed: {' '.join(missing)} (tests/install-engine.sh installs them)" if missing else None


def program(name: str) -> str:
    """The full path of a needed program."""
    path = shutil.which(name, path=_PATH)
    assert path is not None, name
    return path


class Engine:
    """The engine; ``client`` is an SDK client of the tests' own, ``socket`` the path of the engine's socket."""

    image = IMAGE
    entry_image = ENTRY_IMAGE

    def __init__(self) -> None:
        self._number, self._lock = eventually(_free_bridge, 900)
        self.root = Path(tempfile.mkdtemp(prefix="boreas-engine-"))
        self.socket = str(self.root / "docker.sock")
        self._config = self.root / "daemon.json"
        self._spawner = ThreadPoolExecutor(1)  # the engine dies with the thread that started it (pdeathsig)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._client: Any = None
        self._configure(live_restore=False)
        _ip("link", "del", self._bridge, check=False)  # of a run that was killed
        # With an address of its own, as the engine gives docker0: else it has one of its ports', and what leaves takes it along.
        _ip("link", "add", self._bridge, "address", f"02:42:0a:e7:{77 + self._number:02x}:01", "type", "bridge")
        _ip("addr", "add", f"10.231.{77 + self._number}.1/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    @property
    def _bridge(self) -> str:
        return f"boreas-test{self._number}"

    @property
    def client(self) -> Any:
        """A client of the running engine (``docker.APIClient``, whose methods are hardly typed)."""
        if self._client is None:
            self._client = docker.APIClient(f"unix://{self.socket}", version="auto", timeout=60)
        return self._client

    @property
    def pid(self) -> int:
        """The pid of the engine."""
        assert self._daemon is not None
        return self._daemon.pid

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        with (self.root / "dockerd.log").open("ab") as log:
            self._daemon = self._spawner.submit(
                subprocess.Popen, self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            ).result()
        try:
            eventually(self._answers, 60)
        except AssertionError as error:
            raise RuntimeError(f"the test engine did not start: {self.log_tail()}") from error

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the engine and wait until it is gone; with live-restore, containers go on."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._daemon is not None:
            self._daemon.send_signal(how)
            self._daemon.wait(60)
            self._daemon = None
        if how is signal.SIGKILL:
            # Its containerd dies with it, but stays a zombie as long as PID 1 likes, which the next engine takes for alive.
            eventually(lambda: not _listens(str(self.root / "exec/containerd/containerd.sock")))
            (self.root / "exec/containerd/containerd.pid").unlink(missing_ok=True)

    def ensure(self) -> None:
        """Start the engine where it does not run."""
        if self._daemon is None:
            self.start()

    def restart(self, *, live_restore: bool) -> None:
        """As ``systemctl restart docker`` would, with or without the setting live-restore."""
        self.set_live_restore(live_restore)
        self.stop()
        self.start()

    def set_live_restore(self, on: bool) -> None:
        """Change the setting of the running engine."""
        if self.client.info()["LiveRestoreEnabled"] != on:
            self._configure(live_restore=on)
            os.kill(self.pid, signal.SIGHUP)
            eventually(lambda: self.client.info()["LiveRestoreEnabled"] == on)

    def make_images(self) -> None:
        """Make the two images out of the machine's static busybox."""
        self.make_image(IMAGE)
        self.make_image(ENTRY_IMAGE, 'ENTRYPOINT ["/bin/echo", "entrypoint"]', 'CMD ["cmd"]')

    def make_image(self, reference: str, *changes: str) -> None:
        """An image with layers of its own: it shares nothing with another that a pull could leave out."""
        name, _, tag = reference.rpartition(":")
        rootfs = _rootfs(Path(program("busybox")), {"etc/image": reference})
        self.client.import_image_from_data(rootfs, repository=name, tag=tag, changes=list(changes))

    def run(self, name: str, command: Sequence[str] = SERVE, **config: Any) -> str:
        """A container that is not the agent's, as a user would start it; its id."""
        body = {"Image": IMAGE, "Entrypoint": list(command), **config}
        made = self.client.create_container_from_config(body, name)
        self.client.start(made["Id"])
        return str(made["Id"])

    def remove_containers(self) -> None:
        """Remove every container."""
        for container in self.client.containers(all=True, quiet=True):
            with suppress(docker.errors.NotFound):
                self.client.remove_container(container["Id"], force=True, v=True)

    def log_tail(self, lines: int = 15) -> str:
        """The end of the engine's log."""
        return "\n".join((self.root / "dockerd.log").read_text(errors="replace").splitlines()[-lines:])

    def close(self) -> None:
        """Stop the engine and leave nothing behind."""
        try:
            if self._daemon is not None and self._daemon.poll() is None and self._answers():
                self.set_live_restore(on=False)
                self.remove_containers()
            self.stop()
        finally:
            self._spawner.shutdown()
            self._clean()
            self._lock.close()

    def _clean(self) -> None:
        for pid in _processes_naming(str(self.root)):  # shims, where the engine ended by itself
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        groups = [*Path("/sys/fs/cgroup").glob(f"*{self._cgroup}"), *Path("/sys/fs/cgroup").glob(self._cgroup[1:])]
        for group in groups:
            remove_cgroup(group)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{self.root}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        _ip("link", "del", self._bridge, check=False)
        shutil.rmtree(self.root)

    @property
    def _cgroup(self) -> str:
        return f"/boreas-test-{os.getpid()}"

    def _configure(self, *, live_restore: bool) -> None:
        self._config.write_text(json.dumps({"live-restore": live_restore}))

    def _command(self) -> list[str]:
        return [
            *(program("setpriv"), "--pdeathsig", "TERM", program("dockerd")),
            *("--max-download-attempts", "1"),  # it is the agent that tries again
            *("--config-file", str(self._config), "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "exec")),
            *("--pidfile", str(self.root / "pid"), "-H", f"unix://{self.socket}", "--cgroup-parent", self._cgroup),
            *("--bridge", self._bridge, "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"),
        ]

    def _answers(self) -> bool:
        if self._daemon is not None and self._daemon.poll() is not None:
            raise RuntimeError(f"the test engine ended with {self._daemon.returncode}: {self.log_tail()}")
        if not _listens(self.socket):
            return False
        with suppress(docker.errors.DockerException):
            return bool(self.client.ping())
        return False


def _free_bridge() -> tuple[int, IO[str]] | None:
    """The number of a bridge that no other run uses, and the lock that keeps it ours."""
    for number in range(_BRIDGES):
        lock = (_LOCKS / f"boreas-test-engine-{number}.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        return number, lock
    return None


def _listens(path: str) -> bool:
    """Asked before the SDK is, which leaves a socket open where nobody listens."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.connect(path)
        return True
    return False


def _ip(*arguments: str, check: bool = True) -> None:
    subprocess.run([program("ip"), *arguments], check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


def _processes_naming(folder: str) -> list[int]:
    """The processes with ``folder``, a name that nobody else has, on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and folder.encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def remove_cgroup(folder: Path) -> None:
    """End what is left in a cgroup of ours, and remove it."""

    def empty() -> bool:
        pids = [int(pid) for file in folder.rglob("cgroup.procs") for pid in file.read_text().split()]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    eventually(empty)
    for inner, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            Path(inner).rmdir()


def _rootfs(busybox: Path, files: Mapping[str, str]) -> bytes:
    """A tar of the smallest system there is: busybox, a link for each of its commands, users root and app, and ``files``."""
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    users = {"etc/passwd": "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n", "etc/group": "root:x:0:\napp:x:1000:\n"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "etc", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(folder)
        tar.add(busybox.resolve(), "bin/busybox")
        for applet in applets:
            if applet != "busybox":  # a link to itself would replace the program
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for name, text in {**users, **files}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
