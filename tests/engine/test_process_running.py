"""What a process finds when it starts, and how it is seen to end."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.errors import Terminal, Transient
from boreas_agent.model import Instance, Phase
from tests.engine.processes import Ground, alive, blank_is_ready, ended, ground, number_of, only, seen_in, shell, sleeper, want
from tests.waiting import eventually, eventually_async


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Ground]:
    with ground(tmp_path) as made:
        yield made


def output_of(place: Ground, asked: Instance) -> str:
    """What the instance wrote until it ended well."""

    async def work(driver: ProcessDriver) -> str:
        await driver.start(asked, 0)
        done = await ended(driver, asked.name.app)
        assert done.ok, f"{done}: {place.log(asked, 'stderr')}"
        return place.log(asked)

    return place.run(work)


def test_the_environment_is_clean_and_passed_verbatim(place: Ground) -> None:
    environment = {"discovery.type": "single-node", "OPTIND": "foo", "A B": "c=d", "EMPTY": "", "ünï": "cödé\nline\ttab", "USER": "mine"}
    asked = want(command=["/usr/bin/env", "-0"], environment=environment, revision=3, version="v1/x")
    found = dict(item.split("=", 1) for item in output_of(place, asked).split("\0") if item)
    root = pwd.getpwuid(os.getuid())
    assert found == environment | {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": root.pw_dir,
        "BOREAS_APP": "web",
        "BOREAS_VERSION": "v1/x",
        "BOREAS_REVISION": "3",
        "BOREAS_REPLICA": "0",
    }


def test_arguments_are_passed_verbatim(place: Ground) -> None:
    words = ["", "a b", "$HOME", "'\"\\", "*", "ü\n"]
    asked = want(command=["/usr/bin/printf", "%s\\0"], args=words)
    assert output_of(place, asked).split("\0")[:-1] == words


def test_a_process_has_no_stray_descriptors(place: Ground) -> None:
    listing = output_of(place, want(command=["/bin/ls", "-l", "/proc/self/fd"]))
    names = [line.split(" -> ")[0].split()[-1] for line in listing.splitlines() if " -> " in line]
    assert [name for name in names if int(name) < 3] == ["0", "1", "2"]
    assert names == ["0", "1", "2", "3"]  # 3 is the folder that ls itself reads
    assert "0 -> /dev/null" in listing


def test_a_process_starts_with_default_signals_in_its_own_session_with_a_usual_umask(place: Ground) -> None:
    status = output_of(place, shell("umask; cut -d' ' -f1,5,6 /proc/$$/stat; grep -E '^Sig(Ign|Blk)' /proc/self/status"))
    umask, ids, *masks = status.splitlines()
    assert umask == "0022"
    assert len(set(ids.split())) == 1
    assert {line.split()[0]: int(line.split()[1], 16) for line in masks} == {"SigBlk:": 0, "SigIgn:": 0}


def test_a_process_dies_of_no_death_but_its_own(place: Ground) -> None:
    asked = want(
        command=[
            "/usr/bin/env",
            "python3",
            "-c",
            "import ctypes; i = ctypes.c_int(7); ctypes.CDLL(None).prctl(2, ctypes.byref(i)); print(i.value)",
        ]
    )
    assert output_of(place, asked).strip() == "0"


def test_a_relative_program_and_the_working_directory_start_in_the_release_folder(place: Ground) -> None:
    release = place.layout.release(want(command=["x"]).name)
    (release / "bin").mkdir(parents=True)
    for name in ("bin/tool", "plain"):
        (release / name).write_text("#!/bin/sh\npwd; echo $0\n")
        (release / name).chmod(0o755)
    assert output_of(place, want(command=["./bin/tool"])).split() == [str(release), str(release / "bin/tool")]
    assert output_of(place, want("b", command=["pwd"])).split() == [str(place.layout.release(want("b", command=["x"]).name))]
    assert output_of(place, want("c", command=["pwd"], working_dir="/usr")).split() == ["/usr"]


def test_a_bare_name_is_looked_up_in_the_path_of_the_app(place: Ground, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "mytool").write_text("#!/bin/sh\necho found\n")
    (tmp_path / "own" / "mytool").chmod(0o755)
    assert output_of(place, want(command=["mytool"], environment={"PATH": f"{tmp_path}/own:/bin"})) == "found\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
@pytest.mark.parametrize("user", ["nobody", "65534", "nobody:root", "12345"])
def test_a_process_runs_as_its_user_though_the_work_dir_is_closed_to_it(place: Ground, user: str) -> None:
    place.work_dir.chmod(0o700)
    name, _, group = user.partition(":")
    uid = pwd.getpwnam(name).pw_uid if not name.isdigit() else int(name)
    uids = output_of(place, shell("id -u; id -g; echo $HOME $USER; cat /proc/self/status | grep CapEff", user=user)).split()
    assert uids[0] == str(uid)
    assert uids[1] == {"root": "0"}.get(group, "12345" if name == "12345" else str(pwd.getpwuid(uid).pw_gid if name != "12345" else 0))
    assert int(uids[-1], 16) == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")
def test_a_program_in_the_release_folder_runs_as_its_user(place: Ground) -> None:
    place.work_dir.chmod(0o700)
    release = place.layout.release(want(command=["x"]).name)
    release.mkdir(parents=True)
    (release / "tool").write_text("#!/bin/sh\nid -un\n")
    (release / "tool").chmod(0o755)
    assert output_of(place, want(command=["./tool"], user="nobody")) == "nobody\n"


@pytest.mark.parametrize(
    ("user", "sentence"), [("no-such-user", "there is no user 'no-such-user'"), ("root:nope", "there is no group 'nope'")]
)
def test_an_unknown_user_is_refused_with_a_sentence(place: Ground, user: str, sentence: str) -> None:
    async def work(driver: ProcessDriver) -> None:
        with pytest.raises(Terminal, match=f"cannot start web.1.0: {sentence}"):
            await driver.start(sleeper(user=user), 0)
        assert await driver.observe("web") == []

    place.run(work)


@pytest.mark.parametrize(
    ("pkg", "reason"),
    [
        ({"command": ["/no/such/program"]}, "cannot execute /no/such/program: No such file or directory"),
        ({"command": ["no-such-program"]}, "cannot execute no-such-program: No such file or directory"),
        ({"command": ["/etc/passwd"]}, "cannot execute /etc/passwd: Permission denied"),
        ({"command": ["/bin/true"], "working_dir": "/no/such"}, "cannot enter the working directory /no/such: No such file or directory"),
    ],
)
def test_a_program_that_cannot_be_executed_is_a_failed_run_with_a_reason(place: Ground, pkg: dict[str, object], reason: str) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(want(**pkg), 0)
        done = await ended(driver)
        assert (number_of(done), done.code, done.signal, done.reason, done.known) == (1, None, None, reason, False)

    place.run(work)


def test_an_exit_with_137_is_not_a_kill(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(shell("exit 137", "a"), 0)
        await driver.start(shell("kill -KILL $$", "b"), 0)
        first, second = await ended(driver, "a"), await ended(driver, "b")
        assert (first.code, first.signal, first.ok) == (137, None, False)
        assert (second.code, second.signal, second.ok) == (None, "SIGKILL", False)
        assert second.started_at and second.started_at <= second.exited_at
        assert second.seconds is not None and 0 <= second.seconds < 20

    place.run(work)


def test_a_running_process_is_seen_with_its_pid_and_when_it_began(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        before = place.clock.boottime()
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        assert (seen.phase, seen.run, seen.exits, seen.kind) == (Phase.RUNNING, 1, (), "binary")
        assert seen.started is not None and before <= seen.started <= place.clock.boottime()
        assert Path(f"/proc/{seen.ref}/cmdline").read_bytes() == b"/bin/sleep\x001000000\0"
        assert list(await driver.observe_all()) == ["web"]

    place.run(work)


def test_an_end_is_told_at_once_and_the_next_run_is_counted(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        events = driver.events()
        for run in range(1, 6):
            await driver.start(sleeper(), run - 1)
            seen = await only(driver)
            assert (seen.run, seen.phase) == (run, Phase.RUNNING)
            os.kill(int(seen.ref), signal.SIGKILL)
            assert await asyncio.wait_for(anext(events), 10) == "web"
            seen = await only(driver)
            assert (seen.phase, seen.last_exit and number_of(seen.last_exit)) == (Phase.EXITED, run)
        assert [number_of(done) for done in seen.exits] == [4, 5]
        folder = place.layout.folder(seen.name)

        async def tidied() -> bool:
            return sorted(path.name for path in folder.iterdir() if path.suffix) == [
                "4.claim",
                "4.exit",
                "5.claim",
                "5.exit",
                "instance.json",
            ]

        await eventually_async(tidied)
        await events.aclose()  # type: ignore[attr-defined]

    place.run(work)


def test_a_paused_process_is_seen_as_paused_and_resumed(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        pid = int((await only(driver)).ref)
        os.kill(pid, signal.SIGSTOP)
        seen = await seen_in(driver, Phase.PAUSED)
        await driver.resume(seen)
        assert (await seen_in(driver, Phase.RUNNING)).ref == str(pid)

    place.run(work)


def test_starting_what_runs_or_ran_already_does_nothing(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        first = await only(driver)
        await driver.start(sleeper(), 0)
        await driver.start(sleeper(), 1)
        assert await only(driver) == first
        await driver.stop(first, "SIGTERM", 5)
        await driver.start(sleeper(), 0)
        assert (await only(driver)).phase is Phase.EXITED

    place.run(work)


def test_an_instance_of_the_same_name_made_from_something_else_is_replaced(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        old = await only(driver)
        other = sleeper(environment={"A": "b"})
        await driver.start(other, old.run)
        new = await only(driver)
        assert (new.hash, new.run, new.phase) == (other.hash, 2, Phase.RUNNING)
        assert not alive(int(old.ref))

    place.run(work)


def test_a_full_folder_of_somebody_else_is_left_alone(place: Ground) -> None:
    place.run(lambda driver: driver.start(sleeper(), 0))
    folder = place.layout.folder(sleeper().name)
    content = (folder / "instance.json").read_text()
    (folder / "instance.json").write_text(content.replace(place.identity, "another-node"))

    async def work(driver: ProcessDriver) -> None:
        assert await driver.observe("web") == []
        with pytest.raises(Terminal, match="belongs to the node another-node"):
            await driver.start(sleeper(), 0)

    place.run(work)
    (folder / "instance.json").write_text('{"record": "of another kind"}')

    async def work_again(driver: ProcessDriver) -> None:
        assert await driver.observe_all() == {}
        with pytest.raises(Terminal, match="cannot read"):
            await driver.start(sleeper(), 0)

    place.run(work_again)
    assert folder.exists()
    (folder / "instance.json").write_text(content)
    assert place.run(only).phase is Phase.RUNNING


def test_a_record_that_was_torn_by_a_power_loss_is_made_anew_and_doubles_nothing(place: Ground) -> None:
    async def started(driver: ProcessDriver) -> str:
        await driver.start(sleeper(), 0)
        return (await only(driver)).ref

    ref = place.run(started)
    record = place.layout.folder(sleeper().name) / "instance.json"
    record.write_text(record.read_text()[:20])

    async def again(driver: ProcessDriver) -> None:
        assert await driver.observe("web") == []
        await driver.start(sleeper(), 0)
        assert (await only(driver)).ref == ref

    place.run(again)


def test_a_folder_that_was_deleted_under_a_running_process_comes_back(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> str:
        await driver.start(sleeper(), 0)
        seen = await only(driver)
        folder = place.layout.folder(seen.name)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        for _ in range(11):
            assert (await driver.observe_all())["web"][0].ref == seen.ref
        assert (folder / "1.claim").exists()
        return seen.ref

    pid = place.run(work)
    assert place.run(only).ref == pid


def test_removing_deletes_the_folder_and_keeps_the_logs(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        asked = shell("echo hello; exec sleep 1000000")
        await driver.start(asked, 0)
        eventually(lambda: place.log(asked))
        seen = await only(driver)
        with pytest.raises(Transient, match=r"cannot remove web\.1\.0: it still runs"):
            await driver.remove(seen)
        await driver.stop(seen, "SIGTERM", 5)
        await driver.remove(await only(driver))
        await driver.remove(seen)
        assert await driver.observe("web") == []
        assert await driver.stop(seen, "SIGTERM", 5) is None
        assert not place.layout.folder(seen.name).exists()
        assert not place.layout.release(seen.name).exists()
        assert place.log(asked) == "hello\n"

    place.run(work)


def test_an_app_whose_folder_holds_something_already_starts_beside_it(place: Ground) -> None:
    note = place.layout.apps / "web" / "logs" / "of an earlier web"
    note.parent.mkdir(parents=True)
    note.touch()

    async def work(driver: ProcessDriver) -> None:
        await driver.start(sleeper(), 0)
        assert (await only(driver)).phase is Phase.RUNNING
        await driver.stop(await only(driver), "SIGKILL", 0)

    place.run(work)
    assert note.exists()


def test_a_restart_makes_anew_what_was_deleted_under_the_running_process(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await driver.start(shell("echo first; exec sleep 1000000"), 0)
        shutil.rmtree(place.layout.apps / "web" / "logs")
        os.kill(int((await only(driver)).ref), signal.SIGKILL)
        await ended(driver, "web")
        again = shell("echo first; exec sleep 1000000")
        await driver.start(again, 1)
        assert (await only(driver)).run == 2
        eventually(lambda: place.log(again) == "first\n")

    place.run(work)


def test_folders_made_ahead_are_not_left_behind(place: Ground) -> None:
    left = place.layout.apps / ".blank.of a killed agent"
    (left / "logs").mkdir(parents=True)

    async def work(driver: ProcessDriver) -> None:
        for number in range(3):
            await driver.start(sleeper(app=f"app-{number}"), 0)

    place.run(work)
    assert sorted(path.name for path in place.layout.apps.iterdir()) == ["app-0", "app-1", "app-2"]


def test_an_app_starts_though_the_folders_made_ahead_have_gone(place: Ground) -> None:
    async def work(driver: ProcessDriver) -> None:
        await eventually_async(partial(blank_is_ready, place))
        for blank in place.layout.apps.glob(".blank.*"):
            shutil.rmtree(blank)
        await driver.start(sleeper(), 0)
        assert ((await only(driver)).phase, (await only(driver)).run) == (Phase.RUNNING, 1)

    place.run(work)


def test_who_finds_the_folder_of_an_app_finds_who_runs_in_it(place: Ground) -> None:
    """The folder made ahead appears whole: an agent that looks at this moment must not take the run for one that nobody has begun."""

    def found(app: str) -> str | None:
        folder = place.layout.apps / app / "instances" / "1.0"
        deadline = time.monotonic() + 10
        while not folder.exists() and time.monotonic() < deadline:
            pass  # it is the first moment that counts
        claim = folder / "1.claim"
        return str(json.loads(claim.read_text())["pid"]) if claim.exists() else None

    async def work(driver: ProcessDriver) -> int:
        moved = 0
        for app in (f"app-{number}" for number in range(20)):
            await eventually_async(partial(blank_is_ready, place))
            (blank,) = place.layout.apps.glob(".blank.*")
            made_ahead = blank.stat().st_ino
            finding = asyncio.create_task(asyncio.to_thread(found, app))
            await driver.start(sleeper(app), 0)
            (seen,) = await driver.observe(app)
            first = await finding
            if (place.layout.apps / app).stat().st_ino == made_ahead:  # else it was ready a moment too late
                assert first == seen.ref
                moved += 1
        return moved

    assert place.run(work) >= 5


def test_replicas_that_start_together_do_not_get_in_each_others_way(place: Ground) -> None:
    """Not even where the app's folder is made ahead, and moved into place while another replica makes what it needs in it."""

    async def work(driver: ProcessDriver) -> None:
        async def all_is_ready() -> bool:
            return await blank_is_ready(place) and any(os.getsid(spare) == spare for spare in place.spares())

        for number in range(60):
            await eventually_async(all_is_ready)
            replicas = [sleeper(f"app-{number}", replica=replica, replicas=2) for replica in range(2)]
            await asyncio.gather(*(driver.start(one, 0) for one in replicas))

    place.run(work)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_program_of_another_user_may_open_its_output_by_name(place: Ground) -> None:
    asked = shell("echo by name >> /dev/stdout; echo and this >> /dev/stderr", user="nobody")
    assert output_of(place, asked) == "by name\n"
    assert place.log(asked, "stderr") == "and this\n"
