"""What an archive may do: fill its release with files, folders and links that stay inside. Nothing else, nowhere else, not by halves."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from boreas_agent.artifacts import releases, tree
from boreas_agent.artifacts.limits import Limits
from boreas_agent.errors import Missing
from boreas_agent.spec import MARKER, Artifact
from tests.engine.hostile import Hostile, corpus

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def make(work_dir: Path, hostile: Hostile) -> str | None:
    """Try to make a release of it; what was said, or None."""
    source = work_dir / "files" / hostile.name
    source.write_bytes(hostile.content)
    most = 64 if "bomb.tar." in hostile.name or hostile.name == "bomb.zip" else 2
    limits = Limits(file_roots=(str(source.parent),), most_entries=2000, max_unpacked_bytes=most * 1024**2)

    async def work() -> None:
        shop = releases.Releases(work_dir / "apps", work_dir / "cache", limits)
        await shop.open()
        try:
            contents = releases.Contents((Artifact(url=source.as_uri(), unpack="auto"),), (), "it")
            await shop.make("web", work_dir / "apps/web/releases/1", contents)
        finally:
            await shop.close()

    try:
        asyncio.run(work())
    except Missing as error:
        return str(error)
    return None


def everything(folder: Path) -> dict[str, tuple[int, int, int]]:
    """All there is below ``folder``, as far as it tells a change."""
    found = {}
    for above, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(above, name)
            status = path.lstat()
            found[str(path)] = (status.st_mode, status.st_size, status.st_nlink if path.is_file() else 0)
    return found


def sound(release: Path) -> bool:
    """Files, folders, and links that really stay inside; ours, and writable by nobody else."""
    for path in release.rglob("*"):
        status = path.lstat()
        if status.st_uid != os.geteuid() or stat.S_IFMT(status.st_mode) not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
            return False
        if path.is_symlink():
            if not Path(os.path.realpath(path)).is_relative_to(release):
                return False
        elif status.st_mode & 0o7022:
            return False
    return True


@pytest.mark.parametrize("hostile", corpus(), ids=lambda one: one.name)
def test_a_hostile_archive_leaves_nothing_outside_its_release_and_nothing_half_written_in_it(tmp_path: Path, hostile: Hostile) -> None:
    for folder in ("files", "apps", "cache/sha256", "cache/partial", "outside"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "outside" / "target").write_text("safe")
    before = everything(tmp_path)
    said = make(tmp_path, hostile)
    release = tmp_path / "apps/web/releases/1"
    if hostile.said is None:
        assert said is None
        assert sound(release)
    else:
        assert said is not None
        assert hostile.said in said
        assert said.isprintable()
        assert not release.exists()
    assert list(tmp_path.glob("apps/web/releases/.*")) == list(tmp_path.glob("cache/partial/*")) == []
    after = everything(tmp_path)
    ours = (str(tmp_path / "apps/web"), str(tmp_path / "cache/sha256/"), str(tmp_path / "files"))
    assert {path: seen for path, seen in after.items() if not path.startswith(ours)} == {
        path: seen for path, seen in before.items() if not path.startswith(ours)
    }
    assert not Path("/tmp/boreas-hostile").exists()


def test_what_a_harmless_archive_becomes(tmp_path: Path) -> None:
    twice = next(one for one in corpus() if one.name == "twice.tar")
    for folder in ("files", "apps"):
        (tmp_path / folder).mkdir()
    assert make(tmp_path, twice) is None
    assert (tmp_path / "apps/web/releases/1/f").read_bytes() == b"22"
    assert json.loads((tmp_path / "apps/web/releases/1" / MARKER).read_text())["made_of"] == "it"


# --- the unpacker, taken over


def confined(folder: Path, line: str) -> str:
    """What a line of Python comes to in an unpacker that does whatever it is told."""
    owner = 65534 if os.geteuid() == 0 else None
    if owner:
        os.chown(folder, owner, owner)
    program = f"""
import os, sys, socket, signal
sys.path.append({str(Path(__file__).parents[2])!r})
from boreas_agent.unpacker.confine import confine
confine({str(folder)!r}, {owner}, {os.getpid()}, 1000, 5)
try:
    {line}
    print("done")
except (OSError, MemoryError) as error:
    print(type(error).__name__)
"""
    ran = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, timeout=30, check=False)
    return ran.stdout.strip() or f"killed by {-ran.returncode}"


@root_only
@pytest.mark.parametrize(
    ("line", "comes_to"),
    [
        ("open('mine', 'w').write('x')", "done"),
        ("os.mkdir('d'); os.symlink('x', 'd/l'); open('f', 'w'); os.link('f', 'd/h')", "done"),
        ("open('OUTSIDE/target', 'w')", "FileNotFoundError PermissionError"),
        ("open('OUTSIDE/target')", "FileNotFoundError PermissionError"),
        ("open('../target')", "FileNotFoundError PermissionError"),
        ("os.listdir('/etc')", "FileNotFoundError PermissionError"),
        ("os.mkfifo('p')", "PermissionError"),
        ("os.mknod('d', 0o20666, os.makedev(1, 3))", "PermissionError"),
        ("os.chown('.', 0, 0)", "PermissionError"),
        ("os.setresuid(0, 0, 0)", "PermissionError"),
        ("os.chroot('.')", "PermissionError"),
        ("os.fork()", "BlockingIOError"),
        ("os.kill(PARENT, 0)", "PermissionError ProcessLookupError"),
        ("socket.socket().connect(('127.0.0.1', PORT))", "PermissionError"),
        ("bytearray(2**30)", "MemoryError"),
        ("open('large', 'wb', 0).write(bytes(1000)); open('large', 'ab', 0).write(b'x')", "OSError"),
        ("exec('while True: pass')", "killed by 24"),
    ],
)
def test_an_unpacker_that_was_taken_over_can_do_nothing_but_fill_its_folder(tmp_path: Path, line: str, comes_to: str) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "target").write_text("safe")
    tmp_path.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        line = line.replace("OUTSIDE", str(outside)).replace("PARENT", str(os.getpid())).replace("PORT", str(listener.getsockname()[1]))
        assert confined(folder, line) in comes_to
    assert (outside / "target").read_text() == "safe"


@root_only
def test_what_a_taken_over_unpacker_could_leave_is_not_adopted(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("safe")
    harm = {
        "somebody else's file": lambda folder: (folder / "f").touch(),
        "a pipe": lambda folder: (os.mkfifo(folder / "p"), os.chown(folder / "p", 65534, 65534)),
        "a link out": lambda folder: ((folder / "l").symlink_to("../outside"), os.lchown(folder / "l", 65534, 65534)),
        "a hard link to elsewhere": lambda folder: (os.chown(outside, 65534, 65534), (folder / "h").hardlink_to(outside)),
    }
    for number, (what, do) in enumerate(harm.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        do(folder)
        with pytest.raises(Missing):
            tree.adopt(folder, 65534, 1000)
            pytest.fail(f"adopted {what}")
