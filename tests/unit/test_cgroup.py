"""Which hierarchy is chosen."""

from __future__ import annotations

from pathlib import Path

from boreas_agent.drivers import cgroup


def mounts(tmp_path: Path, *rows: tuple[str, str, str]) -> Path:
    for name, _, _ in rows:
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    file = tmp_path / "mounts"
    file.write_text("proc /proc proc rw 0 0\n" + "".join(f"cgroup {tmp_path / name} {kind} rw,{what} 0 0\n" for name, kind, what in rows))
    return file


def test_version_2_is_preferred_though_it_has_no_controllers(tmp_path: Path) -> None:
    found = cgroup.find_root(mounts(tmp_path, ("freezer", "cgroup", "freezer"), ("unified", "cgroup2", "nsdelegate")))
    assert found == tmp_path / "unified"


def test_of_version_1_the_freezer_is_preferred(tmp_path: Path) -> None:
    found = cgroup.find_root(mounts(tmp_path, ("pids", "cgroup", "pids"), ("freezer", "cgroup", "freezer"), ("cpu", "cgroup", "cpu")))
    assert found == tmp_path / "freezer"


def test_without_any_there_is_none(tmp_path: Path) -> None:
    assert cgroup.find_root(mounts(tmp_path, ("cpu", "cgroup", "cpu,cpuacct"))) is None


def test_the_groups_above_go_with_the_last_one(tmp_path: Path) -> None:
    one, other = (cgroup.path_of(tmp_path, "0123456789", name) for name in ("a.1.0", "keeper"))
    assert one == tmp_path / "boreas.slice" / "01234567" / "a.1.0"
    assert cgroup.create(one) == one
    assert cgroup.create(other) == other
    cgroup.remove(one)
    assert list((tmp_path / "boreas.slice" / "01234567").iterdir()) == [other]
    cgroup.sweep(other.parent)
    cgroup.remove(other)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert cgroup.create(tmp_path / "file" / "group") is None
    assert cgroup.members(tmp_path / "nothing") == ()
