"""What is deleted of apps that are gone."""

from __future__ import annotations

import os
from pathlib import Path

from boreas_agent.drivers import folders
from boreas_agent.drivers.runs import Layout
from boreas_agent.model import InstanceName


def _app(layout: Layout, app: str, written: float, *, instance: bool = False) -> Path:
    name = InstanceName(app, 1, 0)
    log = layout.log(name, "stdout")
    log.parent.mkdir(parents=True)
    log.touch()
    layout.release(name).parent.mkdir()
    if instance:
        layout.folder(name).mkdir(parents=True)
    for path in (log, log.parent):
        os.utime(path, (written, written))
    return layout.apps / app


def test_only_old_logs_of_apps_without_instances_are_deleted(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    gone, recent, runs = _app(layout, "gone", 100.0), _app(layout, "recent", 300.0), _app(layout, "runs", 100.0, instance=True)
    mine = layout.apps / "somebody's"
    mine.mkdir()
    (mine / "note").touch()
    folders.sweep(layout, before=200.0)
    assert not gone.exists()
    assert (recent / "logs/0.stdout.log").exists()
    assert (runs / "logs/0.stdout.log").exists()
    assert (mine / "note").exists()


def test_a_release_that_holds_something_is_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    gone = _app(layout, "gone", 100.0)
    program = gone / "releases" / "1" / "program"
    program.parent.mkdir()
    program.touch()
    folders.sweep(layout, before=200.0)
    assert program.exists()
    assert not (gone / "logs").exists()
