"""Artifacts on a real driver: fetched over loopback, verified, unpacked, made into releases, and collected."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from boreas_agent.artifacts.limits import Limits
from boreas_agent.clock import SystemClock
from boreas_agent.drivers.process import ProcessDriver
from boreas_agent.errors import Missing, Terminal, Transient
from boreas_agent.model import Instance
from tests.certificates import Authority
from tests.engine.files import FileServer, file_server
from tests.engine.node import processes_with
from tests.engine.processes import want
from tests.engine.small_disk import small_disk
from tests.waiting import eventually, eventually_async

PROGRAM = b"#!/bin/sh\nexec sleep 1000000\n"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


class Shop:
    """A work dir and its driver, for tests that start nothing."""

    def __init__(self, work_dir: Path, **limits: Any) -> None:
        self.work_dir = work_dir
        self.limits = Limits(file_roots=(str(work_dir / "files"),), header_roots=(str(work_dir / "headers"),), **limits)

    def driver(self) -> ProcessDriver:
        return ProcessDriver(self.work_dir, "me", SystemClock(), limits=self.limits)

    def prepare(self, *wants: Instance) -> list[BaseException | None]:
        """All of them at once; what came of each."""

        async def work() -> list[BaseException | None]:
            driver = self.driver()
            await driver.open()
            try:
                return list(await asyncio.gather(*(driver.prepare(one) for one in wants), return_exceptions=True))
            finally:
                await driver.close()

        return asyncio.run(work())

    def release(self, app: str = "web", revision: int = 1) -> Path:
        return self.work_dir / "apps" / app / "releases" / str(revision)

    @property
    def leftovers(self) -> list[Path]:
        """Whatever is half made."""
        return [*self.work_dir.glob("cache/partial/*"), *self.work_dir.glob("apps/*/releases/.*")]


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    (tmp_path / "files").mkdir()
    (tmp_path / "headers").mkdir()
    return Shop(tmp_path)


def bringing(*artifacts: dict[str, Any], app: str = "web", revision: int = 1) -> Instance:
    return want(app, revision=revision, command=["./app"], artifacts=list(artifacts))


def tar(**files: bytes) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/"))
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def test_a_program_is_fetched_into_its_release_and_is_executable(shop: Shop, server: FileServer) -> None:
    assert shop.prepare(bringing(server.serve("app", PROGRAM))) == [None]
    program = shop.release() / "app"
    assert program.read_bytes() == PROGRAM
    assert program.stat().st_mode & 0o7777 == 0o755
    assert shop.leftovers == []


def test_an_archive_is_unpacked_and_a_file_is_put_beside_it(shop: Shop, server: FileServer) -> None:
    packed = server.serve("app.tgz", tar(top__bin__app=PROGRAM, top__conf=b"old")) | {"unpack": True, "strip_components": 1}
    conf = server.serve("conf", b"new") | {"mode": "0640"}
    assert shop.prepare(bringing(packed, conf)) == [None]
    assert (shop.release() / "bin" / "app").read_bytes() == PROGRAM
    assert (shop.release() / "conf").read_bytes() == b"new"
    assert (shop.release() / "conf").stat().st_mode & 0o7777 == 0o640
    assert {path.stat().st_uid for path in shop.release().rglob("*")} == {os.geteuid()}
    assert shop.leftovers == []


def test_two_apps_that_want_the_same_share_one_download_but_no_file(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("app", PROGRAM * 10000)
    assert shop.prepare(bringing(artifact, app="one"), bringing(artifact, app="two")) == [None, None]
    assert server.times("app") == 1
    one, two = (shop.release(app) / "app" for app in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.stat().st_ino != two.stat().st_ino


def test_what_was_fetched_once_needs_no_network_again(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("app", PROGRAM)
    assert shop.prepare(bringing(artifact)) == [None]
    server.files.clear()
    assert shop.prepare(bringing(artifact, revision=2)) == [None]
    assert (shop.release(revision=2) / "app").read_bytes() == PROGRAM


def test_an_app_that_writes_to_its_files_changes_no_other_release(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("app", PROGRAM)
    assert shop.prepare(bringing(artifact)) == [None]
    with (shop.release() / "app").open("r+b") as file:
        file.write(b"#!/bin/false")
    assert shop.prepare(bringing(artifact, revision=2)) == [None]
    assert (shop.release(revision=2) / "app").read_bytes() == PROGRAM
    assert server.times("app") == 2


def test_a_wrong_checksum_is_refused_and_both_are_named(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("app", PROGRAM)
    (error,) = shop.prepare(bringing(artifact | {"sha256": "0" * 64}))
    assert isinstance(error, Missing)
    assert f"expected sha256 {'0' * 64}, got {artifact['sha256']}" in str(error)
    assert shop.leftovers == []
    assert not shop.release().exists()


def test_a_download_that_was_cut_off_is_gone_on_with(shop: Shop, server: FileServer) -> None:
    content = os.urandom(5_000_000)
    artifact = server.serve("app", content, cut_at=3_000_000)
    (error,) = shop.prepare(bringing(artifact))
    assert isinstance(error, Transient)
    assert not isinstance(error, Missing)
    assert shop.prepare(bringing(artifact)) == [None]
    assert (shop.release() / "app").read_bytes() == content
    started = server.asked[1][1]
    assert started is not None
    assert 1_000_000 < int(started.removeprefix("bytes=").rstrip("-")) <= 3_000_000


def test_what_is_left_of_something_else_is_not_gone_on_with_for_long(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("app", PROGRAM * 100)
    partial = shop.work_dir / "cache" / "partial" / artifact["sha256"]
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"something else")
    assert shop.prepare(bringing(artifact)) == [None]
    assert (shop.release() / "app").read_bytes() == PROGRAM * 100


@pytest.mark.parametrize("left", [b"too long" * 1000, PROGRAM])
def test_a_server_without_ranges_or_a_partial_that_is_too_long_means_to_begin_anew(shop: Shop, server: FileServer, left: bytes) -> None:
    artifact = server.serve("app", PROGRAM * 20, ranges=left != PROGRAM)
    partial = shop.work_dir / "cache" / "partial" / artifact["sha256"]
    partial.parent.mkdir(parents=True)
    partial.write_bytes(left)
    assert shop.prepare(bringing(artifact)) == [None]
    assert (shop.release() / "app").read_bytes() == PROGRAM * 20


def test_a_download_that_is_given_up_leaves_nothing(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("app", os.urandom(3_000_000), hold_at=2_000_000)

    async def work() -> None:
        driver = shop.driver()
        await driver.open()
        preparing = asyncio.create_task(driver.prepare(bringing(artifact)))
        await eventually_async(lambda: _value("1.9 of 2.9 MiB" in driver.progress("web")))
        preparing.cancel()
        await asyncio.wait({preparing})
        assert shop.leftovers == []
        assert driver.progress("web") == ""
        await driver.close()

    asyncio.run(work())


async def _value(value: bool) -> bool:
    return value


def test_one_of_two_that_gives_up_leaves_the_download_to_the_other(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("app", os.urandom(3_000_000), hold_at=2_000_000)

    async def work() -> None:
        driver = shop.driver()
        await driver.open()
        one, two = (asyncio.create_task(driver.prepare(bringing(artifact, app=app))) for app in ("one", "two"))
        await eventually_async(lambda: _value("MiB" in driver.progress("one") and "MiB" in driver.progress("two")))
        one.cancel()
        await asyncio.wait({one})
        server.files["/app"].release.set()
        await two
        assert server.times("app") == 1
        await driver.close()

    asyncio.run(work())


@pytest.mark.parametrize(("status", "kind"), [(404, Missing), (403, Missing), (500, Transient), (429, Transient)])
def test_what_the_server_says_decides_whether_a_deployment_waits(shop: Shop, server: FileServer, status: int, kind: type) -> None:
    artifact = server.serve("app", PROGRAM, status=status)
    (error,) = shop.prepare(bringing(artifact | {"url": artifact["url"] + "?token=secret"}))
    assert type(error) is kind
    assert f"the server answered {status}" in str(error)
    assert "app?token=***" in str(error)
    assert "secret" not in str(error)


def test_headers_are_read_from_a_file_at_each_fetch_and_do_not_follow_to_other_hosts(shop: Shop, server: FileServer) -> None:
    secret = shop.work_dir / "headers" / "repo"
    secret.write_text("# for the repository\nPRIVATE-TOKEN: one\n")
    secret.chmod(0o600)
    with file_server() as other:
        artifact = other.serve("app", PROGRAM)
        server.serve("moved", b"", status=302, location=other.url("app"))
        asked = {"url": server.url("moved"), "sha256": artifact["sha256"], "headers_from": str(secret)}
        assert shop.prepare(bringing(asked)) == [None]
        assert server.asked[0][2]["private-token"] == "one"
        assert "private-token" not in other.asked[0][2]
    secret.write_text("PRIVATE-TOKEN: two\n")
    assert shop.prepare(bringing(server.serve("app2", PROGRAM * 2) | {"headers_from": str(secret)})) == [None]
    assert server.asked[-1][2]["private-token"] == "two"


def test_a_header_file_that_others_may_write_to_or_that_is_elsewhere_is_refused_without_a_word_of_it(
    shop: Shop, server: FileServer
) -> None:
    loose, outside = shop.work_dir / "headers" / "loose", shop.work_dir / "tokens"
    loose.write_text("ci:apply:secret\n")
    outside.write_text("ci:apply:secret\n")
    outside.chmod(0o600)
    loose.chmod(0o666)
    (shop.work_dir / "headers" / "link").symlink_to(outside)
    for path in (loose, outside, shop.work_dir / "headers" / "link", shop.work_dir / "headers" / ".." / "tokens"):
        (error,) = shop.prepare(bringing(server.serve("app", PROGRAM) | {"headers_from": str(path)}))
        assert isinstance(error, Terminal)
        assert "secret" not in str(error)
    loose.chmod(0o600)
    loose.write_text("no header, but a secret\n")
    (error,) = shop.prepare(bringing(server.serve("app", PROGRAM) | {"headers_from": str(loose)}))
    assert "line 1 of" in str(error)
    assert "secret" not in str(error)
    assert server.asked == []


def test_a_host_must_show_a_certificate_that_is_trusted(shop: Shop, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    leaf = authority.leaf("server")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(leaf.cert, leaf.key)
    with file_server(context) as server:
        artifact = server.serve("app", PROGRAM)
        artifact["url"] = artifact["url"].replace("http:", "https:")
        (error,) = shop.prepare(bringing(artifact))
        assert type(error) is Transient
        assert "its certificate is not trusted" in str(error)
        assert server.asked == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:1/app?sig=secret", "refused"),
        (f"http://{'a' * 300}/app?sig=secret", "no host can have such a name"),
        ("http://a..b/app?sig=secret", "no host can have such a name"),
        ("http://no-such-host.invalid/app?sig=secret", "its name cannot be resolved"),
        ("http://[::1]:1/%zz?sig=secret", "cannot fetch http://[::1]:1/%zz?sig=***"),
    ],
)
def test_an_address_that_leads_nowhere_is_said_without_its_secret(shop: Shop, url: str, words: str) -> None:
    (error,) = shop.prepare(bringing({"url": url, "sha256": "0" * 64, "dest": "app"}))
    assert isinstance(error, Transient)
    assert words in str(error)
    assert "secret" not in str(error)


def test_many_addresses_of_the_same_that_all_fail_hold_up_nobody(shop: Shop) -> None:
    addresses = [f"http://127.0.0.1:1/app?sig={number}" for number in range(4)]
    apps = [bringing({"url": one, "sha256": "0" * 64, "dest": "app"}, app=f"app{index}") for index, one in enumerate(addresses)]
    assert [type(error) for error in shop.prepare(*apps)] == [Transient] * 4


def test_an_address_is_sent_as_it_was_signed(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("a%2fb%7Ec", PROGRAM)
    assert shop.prepare(bringing(artifact | {"url": artifact["url"] + "?x=%2F+%7e&ü=1", "dest": "app"})) == [None]
    assert server.asked[0][0] == "/a%2fb%7Ec?x=%2F+%7e&%C3%BC=1"


def test_a_fetch_that_goes_on_for_too_long_is_given_up_and_what_came_is_kept(tmp_path: Path, server: FileServer) -> None:
    shop = Shop(tmp_path, seconds=0.5)
    artifact = server.serve("app", os.urandom(3_000_000), hold_at=2_000_000)
    (error,) = shop.prepare(bringing(artifact))
    assert "it was not here within 0.5 s" in str(error)
    server.files["/app"].release.set()
    assert shop.prepare(bringing(artifact)) == [None]
    assert server.asked[1][1] is not None


def test_redirects_are_bounded(shop: Shop, server: FileServer) -> None:
    server.serve("round", b"", status=302, location=server.url("round"))
    (error,) = shop.prepare(bringing({"url": server.url("round"), "sha256": "0" * 64, "dest": "app"}))
    assert "redirected more than 5 times" in str(error)
    assert server.times("round") == 6


def test_files_of_the_node_come_from_allowed_folders_only(shop: Shop) -> None:
    build = shop.work_dir / "files" / "app"
    build.write_bytes(PROGRAM)
    assert shop.prepare(bringing({"url": build.as_uri()})) == [None]
    assert (shop.release() / "app").read_bytes() == PROGRAM
    (build.parent / "link").symlink_to("/etc/passwd")
    (build.parent / "folder").symlink_to("/etc")
    os.mkfifo(build.parent / "pipe")
    for path in ("/etc/passwd", f"{build.parent}/link", f"{build.parent}/folder/passwd", f"{build.parent}/pipe", f"{build.parent}"):
        (error,) = shop.prepare(bringing({"url": f"file://{path}"}, revision=2))
        assert isinstance(error, Terminal), (path, error)
    (error,) = shop.prepare(bringing({"url": f"file://{build.parent}/missing"}, revision=2))
    assert type(error) is Missing
    (error,) = shop.prepare(bringing({"url": build.as_uri(), "sha256": "0" * 64}, revision=2))
    assert "wrong checksum" in str(error)


def test_what_is_larger_than_allowed_is_refused_before_it_comes(tmp_path: Path, server: FileServer) -> None:
    shop = Shop(tmp_path, max_bytes=1000)
    (error,) = shop.prepare(bringing(server.serve("app", b"x" * 1001)))
    assert type(error) is Missing
    assert "agent.artifacts.max_bytes is 1000" in str(error)
    shop = Shop(tmp_path, min_free_bytes=2**60)
    (error,) = shop.prepare(bringing(server.serve("app", b"x")))
    assert "agent.artifacts.min_free_bytes" in str(error)
    assert shop.leftovers == []


def test_a_server_that_falls_silent_is_given_up_and_what_came_is_kept(tmp_path: Path, server: FileServer) -> None:
    shop = Shop(tmp_path, stall_seconds=0.3)
    artifact = server.serve("app", os.urandom(3_000_000), hold_at=2_000_000)
    (error,) = shop.prepare(bringing(artifact))
    assert type(error) is Transient
    assert "no answer within 0.3 s" in str(error)
    server.files["/app"].release.set()
    assert shop.prepare(bringing(artifact)) == [None]
    assert server.asked[1][1] is not None


def test_the_newest_five_and_those_that_are_needed_are_kept(shop: Shop, server: FileServer) -> None:
    for revision in range(1, 9):
        assert shop.prepare(bringing(server.serve(f"app{revision}", b"%d" % revision), revision=revision)) == [None]
    (shop.work_dir / "apps/web/instances/2.0").mkdir(parents=True)
    theirs = shop.work_dir / "apps/web/releases/notes"
    theirs.mkdir()

    async def collect(keep: set[int]) -> None:
        driver = shop.driver()
        await driver.open()
        await driver.collect({"web": keep})
        await driver.close()

    asyncio.run(collect({1}))
    assert {path.name for path in shop.release().parent.iterdir()} == {"1", "2", "4", "5", "6", "7", "8", "notes"}
    (shop.work_dir / "apps/web/instances/2.0").rmdir()
    asyncio.run(collect(set()))
    assert {path.name for path in shop.release().parent.iterdir()} == {"notes"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_what_nobody_needs_makes_room_when_there_is_none(tmp_path: Path, server: FileServer) -> None:
    with small_disk(tmp_path / "disk", "16M") as disk:
        shop = Shop(disk, min_free_bytes=0)
        assert shop.prepare(bringing(server.serve("old", os.urandom(9_000_000)), app="old")) == [None]
        shutil.rmtree(disk / "apps/old")
        old = disk / "cache/sha256" / server.files["/old"].sha256
        assert old.exists()
        assert shop.prepare(bringing(server.serve("app", os.urandom(9_000_000)))) == [None]
        assert not old.exists()


# --- the process that fetches --------------------------------------------------------------------


def fetchers(work_dir: Path) -> list[int]:
    """The processes that fetch into this work dir's cache."""
    return [pid for pid in processes_with("boreas_agent.fetcher") if pid in processes_with(f'"cache": "{work_dir}/cache"')]


def test_a_fetcher_that_is_killed_fails_what_it_does_and_the_next_one_goes_on(shop: Shop, server: FileServer) -> None:
    artifact = server.serve("app", os.urandom(4_000_000), hold_at=3_000_000)

    async def work() -> None:
        driver = shop.driver()
        await driver.open()
        preparing = asyncio.create_task(driver.prepare(bringing(artifact)))
        await asyncio.to_thread(
            eventually, lambda: [path for path in shop.work_dir.glob("cache/partial/*") if path.stat().st_size >= 3_000_000]
        )
        (fetcher,) = fetchers(shop.work_dir)
        os.kill(fetcher, signal.SIGKILL)
        with pytest.raises(Transient, match="the process that fetches it has ended; it is started again"):
            await preparing
        server.files["/app"].release.set()
        await driver.prepare(bringing(artifact))
        assert len(fetchers(shop.work_dir)) == 1
        await driver.close()

    asyncio.run(work())
    assert [asked for _, asked, _ in server.asked] == [None, "bytes=3000000-"]
    assert fetchers(shop.work_dir) == []


def test_a_fetcher_that_nothing_is_asked_of_goes_after_a_while(shop: Shop, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boreas_agent.artifacts.fetching.LINGER_SECONDS", 0.1)

    async def work() -> None:
        driver = shop.driver()
        await driver.open()
        for number in (1, 2):
            await driver.prepare(bringing(server.serve(f"app-{number}", PROGRAM + bytes(number)), revision=number))
            await asyncio.to_thread(eventually, lambda: fetchers(shop.work_dir) == [])
        await driver.close()

    asyncio.run(work())


def test_unpacking_that_is_given_up_ends_at_once_and_leaves_nothing(tmp_path: Path, server: FileServer) -> None:
    shop = Shop(tmp_path, ratio=10**6)
    entry, part = tarfile.TarInfo("zeros"), gzip.compress(bytes(16 * 1024**2))
    entry.size = 128 * 16 * 1024**2
    artifact = server.serve("app.tgz", gzip.compress(entry.tobuf()) + part * 128) | {"unpack": True}

    async def work() -> None:
        driver = shop.driver()
        await driver.open()
        preparing = asyncio.create_task(driver.prepare(bringing(artifact)))
        await eventually_async(lambda: _value(driver.progress("web") == "unpacking app.tgz"))
        await eventually_async(lambda: _value(any(tmp_path.glob("apps/web/releases/.making.*/unpacked/zeros"))))
        preparing.cancel()
        await asyncio.wait({preparing})
        assert shop.leftovers == []
        await driver.close()

    asyncio.run(work())


def test_what_no_release_needs_leaves_the_cache_when_it_is_too_much(tmp_path: Path, server: FileServer) -> None:
    shop = Shop(tmp_path, cache_bytes=1500)
    for app in ("one", "two", "three"):
        assert shop.prepare(bringing(server.serve(app, app.encode() * 200), app=app)) == [None]

    async def collect() -> None:
        driver = shop.driver()
        await driver.open()
        await driver.collect({"one": (), "two": ()})
        await driver.close()

    asyncio.run(collect())
    entries = {path.name for path in tmp_path.glob("cache/sha256/*")}
    assert server.files["/three"].sha256 in entries
    assert len(entries) == 3
    shop.limits = Limits(cache_bytes=700)
    asyncio.run(collect())
    assert len(list(tmp_path.glob("cache/sha256/*"))) == 2


def test_a_download_that_is_given_up_before_it_began_has_an_end_too(tmp_path: Path, server: FileServer) -> None:
    ours, theirs = socket.socketpair()
    limits = {"min_free_bytes": 0}
    request = json.dumps({"cache": str(tmp_path), "limits": limits})
    command = [sys.executable, "-I", "-m", "boreas_agent.fetcher", request]
    with ours, subprocess.Popen(command, stdin=theirs) as process:
        theirs.close()
        asked = {"id": 1, "key": "x", "artifact": server.serve("app", PROGRAM) | {"dest": "app"}}
        ours.sendall(json.dumps(asked).encode() + b"\n" + json.dumps({"cancel": 1}).encode() + b"\n")
        ours.settimeout(20)
        assert json.loads(ours.recv(4096)) == {"id": 1, "cancelled": True}
        ours.close()
        assert process.wait(20) == 0


def test_a_fetcher_that_hangs_is_ended_once_it_does_not_even_give_up(
    shop: Shop, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("boreas_agent.artifacts.fetching.END_SECONDS", 0.3)
    artifact = server.serve("app", PROGRAM)

    async def work() -> None:
        driver = shop.driver()
        await driver.open()
        await driver.prepare(bringing(artifact))
        (hanging,) = fetchers(shop.work_dir)
        os.kill(hanging, signal.SIGSTOP)
        preparing = asyncio.create_task(driver.prepare(bringing(server.serve("other", PROGRAM * 2), revision=2)))
        _, pending = await asyncio.wait({preparing}, timeout=0.5)
        assert pending
        preparing.cancel()
        await asyncio.wait({preparing}, timeout=20)
        assert preparing.cancelled()
        await driver.prepare(bringing(server.serve("third", PROGRAM * 3), revision=3))
        assert hanging not in fetchers(shop.work_dir)
        await driver.close()

    asyncio.run(work())
