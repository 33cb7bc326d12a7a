"""Whose a cgroup is, and what it says: on folders that look like ``/proc`` and cgroups."""

from __future__ import annotations

from pathlib import Path

from boreas_agent.usage import hierarchies, measure, own_groups

CONTAINER = "a" * 64
V1 = f"4:memory:/docker/{CONTAINER}\n3:cpu,cpuacct:/docker/{CONTAINER}\n1:name=systemd:/system.slice/docker.service\n"


def test_a_group_that_others_share_says_nothing_of_an_instance() -> None:
    mounts = hierarchies("cgroup2 /cg cgroup2 rw 0 0\ncgroup /m cgroup rw,memory 0 0\n")
    assert own_groups("0::/system.slice/boreas-agent.service\n4:memory:/user.slice\n", mounts) == {}
    assert own_groups("0::/boreas.slice/01234567/1.2.3\n", mounts) == {"": Path("/cg/boreas.slice/01234567/1.2.3")}


def test_version_1_controllers_share_a_hierarchy(tmp_path: Path) -> None:
    mounts = hierarchies(f"cgroup {tmp_path}/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup {tmp_path}/memory cgroup rw,memory 0 0\n")
    for controller, files in {
        "cpu": {"cpuacct.usage": "2500000000\n"},
        "memory": {"memory.usage_in_bytes": "1000\n", "memory.stat": "cache 5\ntotal_inactive_file 400\n"},
    }.items():
        folder = tmp_path / controller / "docker" / CONTAINER
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "cgroup").write_text(V1)
    assert measure(process, mounts) == (2.5, 600)


def test_version_2_has_both_in_one_group(tmp_path: Path) -> None:
    folder = tmp_path / "cg" / "boreas.slice" / "01234567" / "run-web.1.0.1"
    folder.mkdir(parents=True)
    texts = {
        "cpu.stat": "usage_usec 1500000\nuser_usec 1\n",
        "memory.current": "900\n",
        "memory.stat": "inactive_file 100\n",
        "cgroup.procs": "7\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "cgroup").write_text("0::/boreas.slice/01234567/run-web.1.0.1\n")
    assert measure(process, hierarchies(f"cgroup2 {tmp_path}/cg cgroup2 rw 0 0\n")) == (1.5, 800)
