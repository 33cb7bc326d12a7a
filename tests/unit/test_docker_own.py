"""Finding the container that the agent lives in."""

from __future__ import annotations

from pathlib import Path

import pytest

from boreas_agent.drivers.docker_own import own_container

ID = "4f1c" * 16
OTHER = "5a2b" * 16
HOSTS_SHM = f"700 22 0:60 / /var/lib/docker/containers/{OTHER}/mounts/shm rw - tmpfs shm rw"
BIND = f"712 700 254:0 /var/lib/docker/containers/{ID}/hostname /etc/hostname rw,relatime - ext4 /dev/vda rw"


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "found"),
    [
        (BIND, "0::/", ID),
        ("", f"9:freezer:/docker/{ID}\n0::/", ID),
        ("", f"0::/system.slice/docker-{ID}.scope", ID),
        (HOSTS_SHM, "0::/user.slice/user-0.slice/session-1.scope", ""),
        ("", "0::/system.slice/boreas-agent.service", ""),
    ],
    ids=["bind mounts", "cgroup v1", "cgroup v2 with systemd", "a host with containers", "a unit"],
)
def test_the_kernel_says_which_container_it_is(tmp_path: Path, mountinfo: str, cgroup: str, found: str) -> None:
    (tmp_path / "mountinfo").write_text(mountinfo)
    (tmp_path / "cgroup").write_text(cgroup)
    assert own_container(tmp_path) == found


def test_without_proc_it_is_in_none(tmp_path: Path) -> None:
    assert own_container(tmp_path / "missing") == ""
