"""Which controllers are used, and what is written where, on folders that look like a machine's cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from boreas_agent.drivers import limits
from boreas_agent.drivers.limits import Group, Limits
from boreas_agent.errors import Terminal
from boreas_agent.model import InstanceName
from boreas_agent.spec import Resources

NAME = InstanceName("web", 1, 0)
ALL = Resources(cpu_limit="1500m", memory_limit="64Mi", cpu_set="0-1", pids_limit=10)
IDENTITY = "0123456789abcdef"


def version_1(tmp_path: Path, *controllers: str) -> Path:
    """Mounts of one hierarchy a controller."""
    rows = []
    for name in controllers:
        root = tmp_path / name
        for folder in (root, root / "boreas.slice", root / "boreas.slice" / IDENTITY[:8]):
            folder.mkdir()
            for file in ("cgroup.procs", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "cpuset.cpus", "cpuset.mems"):
                (folder / file).touch()
        (root / "cpuset.cpus").write_text("0-3\n")
        (root / "cpuset.mems").write_text("0\n")
        rows.append(f"cgroup {root} cgroup rw,relatime,{name} 0 0")
    return written(tmp_path, rows)


def version_2(tmp_path: Path, offered: str) -> Path:
    root = tmp_path / "unified"
    for folder in (root, root / "boreas.slice", root / "boreas.slice" / IDENTITY[:8]):
        folder.mkdir()
        for file in ("cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.swap.max"):
            (folder / file).touch()
    (root / "cgroup.controllers").write_text(offered)
    return written(tmp_path, [f"cgroup2 {root} cgroup2 rw,nsdelegate 0 0"])


def written(tmp_path: Path, rows: list[str]) -> Path:
    mounts = tmp_path / "mounts"
    mounts.write_text("\n".join(["proc /proc proc rw 0 0", *rows]) + "\n")
    return mounts


def groups_of(mounts: Path, tree: Path | None = None, *, required: bool = True, of: Resources = ALL) -> list[Group]:
    return Limits(limits.find(mounts), tree, IDENTITY, required=required).groups(NAME, of)


def test_version_1_has_a_group_in_each_hierarchy(tmp_path: Path) -> None:
    groups = groups_of(version_1(tmp_path, "memory", "cpu", "cpuset", "pids"), tmp_path / "freezer")
    assert {Path(group["path"]).relative_to(tmp_path).parts[0]: group["files"] for group in groups} == {
        "memory": {"memory.limit_in_bytes": "67108864", "memory.memsw.limit_in_bytes": "67108864"},
        "cpu": {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "150000"},
        "cpuset": {"cpuset.mems": "0", "cpuset.cpus": "0-1"},
        "pids": {"pids.max": "10"},
    }
    assert {Path(group["path"]).name for group in groups} == {"run-web.1.0"}
    assert not any(group["tree"] for group in groups)
    assert (tmp_path / "cpuset/boreas.slice/01234567/cpuset.cpus").read_text() == "0-3\n", "nobody can enter a group without processors"


def test_version_2_has_one_group_which_is_also_that_of_the_process_tree(tmp_path: Path) -> None:
    root = tmp_path / "unified"
    (group,) = groups_of(version_2(tmp_path, "cpuset cpu io memory pids\n"), root)
    assert group["files"] == {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "cpuset.cpus": "0-1",
        "pids.max": "10",
    }
    assert group["tree"]
    assert (root / "boreas.slice" / "cgroup.subtree_control").read_text().startswith("+")


def test_a_version_2_hierarchy_without_controllers_leaves_them_to_version_1(tmp_path: Path) -> None:
    rows = version_1(tmp_path, "memory").read_text().splitlines()[1:]
    rows += version_2(tmp_path, "hugetlb\n").read_text().splitlines()[1:]
    (group,) = groups_of(written(tmp_path, rows), tmp_path / "unified", of=Resources(memory_limit="64Mi"))
    assert group["path"].startswith(str(tmp_path / "memory"))


def test_what_has_no_limits_needs_no_group(tmp_path: Path) -> None:
    assert groups_of(version_1(tmp_path, "memory"), of=Resources()) == []


def test_a_missing_controller_is_named_with_its_field_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match=r"cannot start web.1.0: pids_limit needs the cgroup controller 'pids'.*require_cgroups: false"):
        groups_of(version_1(tmp_path, "memory"), of=Resources(pids_limit=10))


def test_where_limits_are_not_required_the_others_still_hold(tmp_path: Path) -> None:
    (group,) = groups_of(version_1(tmp_path, "memory"), of=Resources(pids_limit=10, memory_limit="64Mi"), required=False)
    assert "memory.limit_in_bytes" in group["files"]
