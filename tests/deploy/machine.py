"""A machine for the agent to be deployed on: systemd as PID 1 in namespaces of its own, on a Debian made for the tests."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.engine.engine import remove_cgroup
from tests.waiting import eventually

HERE = Path(__file__).parent
CACHE = Path("/var/cache/boreas-agent-tests")
MAKE_SECONDS = 300
BOOT_SECONDS = 60


class NotHere(Exception):
    """Why the tests of deployment cannot be run on this machine."""


def base() -> Path:
    """The tar of the Debian, made where it is not there yet. Raises NotHere."""
    if os.geteuid() != 0:
        raise NotHere("making a Debian and booting it needs root")
    CACHE.mkdir(parents=True, exist_ok=True)
    file = CACHE / "base.tar"
    if not file.exists():
        try:
            subprocess.run([HERE / "make-base.sh", file], capture_output=True, text=True, timeout=MAKE_SECONDS, check=True)
        except (subprocess.SubprocessError, OSError) as error:
            said = getattr(error, "stderr", "") or ""
            raise NotHere(f"a Debian could not be made here: {error} {said[-500:]}") from error
    return file


def unpacked(folder: Path) -> Path:
    """The Debian as a folder, which machines look at and do not change."""
    root = folder / "root"
    root.mkdir()
    subprocess.run(["tar", "-x", "-p", "--numeric-owner", "-C", root, "-f", base()], check=True)
    return root


class Machine:
    """Boots in a few seconds; ``layout`` is how its control groups are mounted: v1 (hybrid) or v2."""

    def __init__(self, root: Path, layout: str, log: Path) -> None:
        with log.open("wb") as output:
            self._boot = subprocess.Popen([HERE / "boot.sh", root, layout], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self._log = log
        self._pid = 0
        try:
            self._pid = eventually(self._systemd, 20)
            eventually(self._is_up, BOOT_SECONDS)
        except AssertionError as error:
            said = log.read_text(errors="replace")[-2000:]
            self.close()
            raise NotHere(f"systemd does not run as PID 1 here: {said}") from error

    def _systemd(self) -> int:
        """The pid outside of the machine's PID 1, once that is systemd."""
        for child in Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "systemd":
                return int(child)
        assert self._boot.poll() is None
        return 0

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running").stdout.strip() in {"running", "degraded"}

    def run(self, *command: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run it on the machine, as root."""
        inside = ["nsenter", "-t", str(self._pid), "-m", "-p", "-n", "-u", "-i", "-C", "-r", "-w", "--"]
        return subprocess.run([*inside, *command], capture_output=True, text=True, timeout=seconds, check=False, stdin=subprocess.DEVNULL)

    def does(self, *command: str, seconds: float = 60) -> str:
        """The same; it must work."""
        done = self.run(*command, seconds=seconds)
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def path(self, path: str) -> Path:
        """A file of the machine, as seen from here."""
        return Path(f"/proc/{self._pid}/root") / path.lstrip("/")

    def processes(self) -> dict[int, str]:
        """The names of all that run there, by their pids there."""
        found = {}
        for entry in self.path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit():
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
        return dict(sorted(found.items()))

    def put(self, file: Path, folder: str = "/root") -> str:
        """Copy a file onto the machine; where it is there."""
        shutil.copy(file, self.path(f"{folder}/{file.name}"))
        return f"{folder}/{file.name}"

    def close(self) -> None:
        """Power off, at once."""
        for pid in (self._pid, self._boot.pid):
            with suppress(ProcessLookupError):
                if pid:
                    os.kill(pid, signal.SIGKILL)
        self._boot.wait(20)
        name = f"boreas-machine-{self._boot.pid}"
        for group in [*Path("/sys/fs/cgroup").glob(f"*/{name}"), *Path("/sys/fs/cgroup").glob(name)]:
            remove_cgroup(group)
