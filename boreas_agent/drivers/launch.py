"""From an instance as it is wanted to the request that the keeper understands."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from boreas_agent.drivers import environment as environment_files
from boreas_agent.drivers import script
from boreas_agent.drivers.runs import Layout
from boreas_agent.drivers.tree import MARK
from boreas_agent.errors import Terminal
from boreas_agent.model import Instance, InstanceName
from boreas_agent.spec import RLIMITS, BinaryPkg, ScriptPkg

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OPENED = "/proc/self/fd/4"  # what the keeper's child opened for a user who cannot reach the agent's folder


class Account(Struct, frozen=True):
    """Who a program runs as; ``ids`` None: as the agent itself."""

    name: str
    home: str
    ids: tuple[int, int, tuple[int, ...]] | None


def own_account() -> Account:
    """The agent's own."""
    uid = str(os.geteuid())
    entry = _passwd(uid)
    return Account(entry.pw_name, entry.pw_dir, None) if entry else Account(uid, "/", None)


def account(user: str, instance: InstanceName) -> Account:
    """Look up ``NAME`` or ``UID``, each with an optional ``:GROUP``; raises Terminal where there is no such user or group."""
    wanted, _, group = user.partition(":")
    entry = _passwd(wanted)
    if entry is None and not wanted.isdigit():
        raise Terminal(f"cannot start {instance}: there is no user {wanted!r} on this machine")
    uid = entry.pw_uid if entry else int(wanted)
    name, home = (entry.pw_name, entry.pw_dir) if entry else (wanted, "/")
    if os.geteuid() not in {0, uid}:
        raise Terminal(f"cannot start {instance}: only an agent that runs as root can run it as {user!r}")
    gid = _group(group, instance) if group else (entry.pw_gid if entry else uid)
    groups = tuple(os.getgrouplist(name, gid)) if entry else (gid,)
    return Account(name, home, (uid, gid, groups) if os.geteuid() == 0 else None)


def _passwd(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None


def _group(group: str, instance: InstanceName) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise Terminal(f"cannot start {instance}: there is no group {group!r} on this machine") from None


def owner(want: Instance) -> tuple[int, int] | None:
    """Whose the files written for ``want`` are: its user's and that one's group; None: the agent's own. Raises Terminal."""
    who = account(want.pkg.user, want.name) if want.pkg.user is not None else None
    return who.ids[:2] if who and who.ids else None


def environment(want: Instance, who: Account) -> Mapping[str, str]:
    """A clean environment; what the spec says wins over files, and both over this. Reads the files; raises Terminal."""
    own = {
        "PATH": PATH,
        "HOME": who.home,
        "USER": who.name,
        "BOREAS_APP": want.name.app,
        "BOREAS_VERSION": want.version,
        "BOREAS_REVISION": str(want.name.revision),
        "BOREAS_REPLICA": str(want.name.replica),
    }
    return own | environment_files.read(want.pkg.environment_from, want.name) | dict(want.pkg.environment)


def mark_of(identity: str, name: InstanceName) -> str:
    """Tells this node's instance from any other's."""
    return f"{identity}/{name}"


def program(words: tuple[str, ...], release: str, path: str) -> str:
    """Where ``words[0]`` is: absolute, relative to the release folder, or, a bare name, there or in the app's PATH."""
    name = words[0]
    if name.startswith("/"):
        return name
    there = Path(release, name)
    if "/" in name or there.exists():
        return str(there)
    return shutil.which(name, path=path) or name


def is_plain(want: Instance) -> bool:
    """Whether :func:`request` has nothing to look up: neither in the file system nor in the user database; and needs no cgroups."""
    pkg = want.pkg
    looked_up = pkg.user is not None or bool(pkg.environment_from) or "resources" in pkg.canonical_form
    return isinstance(pkg, BinaryPkg) and not looked_up and "/" in pkg.command[0] and not pkg.brings


def _set_up(pkg: BinaryPkg | ScriptPkg) -> dict[str, Any]:
    """What the child sets before it becomes the program; see ``keeper``."""
    return {
        "umask": int(pkg.umask or "022", 8),
        "rlimits": [[RLIMITS[name], limit.soft, limit.hard] for name, limit in pkg.ulimits.items()],
        "no_new_privs": pkg.no_new_privs,
    }


def request(want: Instance, run: int, layout: Layout, identity: str, own: Account) -> dict[str, Any]:
    """The keeper's request for run ``run``; raises Terminal. ``own`` is the agent's own account.

    Reads the file system and the user database, unless ``want`` is plain.
    """
    pkg, places = want.pkg, layout.places(want.name)
    assert isinstance(pkg, BinaryPkg | ScriptPkg)
    who = account(pkg.user, want.name) if pkg.user is not None else own
    env = environment(want, who)
    opens = None
    if isinstance(pkg, ScriptPkg):
        file = f"{places.folder}/{script.FILE}"
        if who.ids:
            opens, file = file, _OPENED
        argv = script.argv(pkg, file)
        executable = argv[0]
    else:
        argv = (*pkg.command, *pkg.args)
        executable = program(pkg.command, places.release, env.get("PATH", PATH))
        if who.ids and executable.startswith(f"{layout.work_dir}/"):
            opens, executable = executable, _OPENED
    return {
        "folder": places.folder,
        "run": run,
        "program": executable,
        "argv": argv,
        "env": env,
        "cwd": pkg.working_dir or places.release,
        "user": who.ids,
        "set_up": _set_up(pkg),
        "opens": opens,
        "groups": [],
        "stdout": places.stdout,
        "stderr": places.stderr,
        "log_max": pkg.log.most,
        "mark": {MARK: mark_of(identity, want.name)},
        "blank": None,
        "moves": [],
        "writes": [],
        "sync": [],
        "durable": isinstance(pkg, ScriptPkg),
    }


def check(want: Instance, layout: Layout, identity: str, own: Account) -> dict[str, Any]:
    """The runner's request for the check of a script: its file, executed as the script itself would be."""
    assert isinstance(want.pkg, ScriptPkg)
    base, file, opens = request(want, 0, layout, identity, own), f"{layout.places(want.name).folder}/{script.CHECK}", None
    if base["user"]:
        opens, file = file, _OPENED
    argv = script.check_argv(want.pkg, file)
    return {key: base[key] for key in ("env", "cwd", "user", "set_up")} | {"program": argv[0], "argv": argv, "opens": opens}


def beside(want: Instance, command: tuple[str, ...], layout: Layout, identity: str, own: Account) -> dict[str, Any]:
    """The runner's request for a command in the environment of ``want``: what differs from the instance's own run is the program."""
    base = request(want, 0, layout, identity, own)
    executable = program(command, layout.places(want.name).release, base["env"].get("PATH", PATH))
    opens = None
    if base["user"] and executable.startswith(f"{layout.work_dir}/"):
        opens, executable = executable, _OPENED
    return {key: base[key] for key in ("env", "cwd", "user", "set_up")} | {"program": executable, "argv": command, "opens": opens}
