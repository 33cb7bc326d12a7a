"""The keeper: parent of every process. It spawns, waits, writes down how each run ended, and tells whoever listens.

It exists so that apps outlive the agent and their exit status is known even when they end while no agent runs.
It knows nothing of apps or SQL, needs nothing but the standard library, of which it loads little, and is a program of
its own (``python -I -S keeper/__main__.py DIR NAME [CGROUP]``). Killed, it costs exit statuses, never apps.

It listens on ``DIR/NAME.PID.sock``; requests, answers and notices are lines of JSON:

- on connecting, the agent gets ``{"keeper": [pid, start]}``
- ``{"id", "folder", "run", "program", "argv", "env", "cwd", "user", "set_up", "opens", "groups", "stdout", "stderr", "log_max", "mark",
  "blank", "moves", "writes", "sync", "durable"}``
  asks for a run (``user``: [uid, gid, groups] or null; ``opens``: a file to open as descriptor 4 before the user changes;
  ``set_up``: ``umask``, ``rlimits`` ([number, soft, hard]…) and ``no_new_privs``; ``groups``: cgroups that limit the run, each
  ``path`` (the run's number is appended), ``files`` to write before it is entered, and ``tree``: it takes the place of the child's own;
  ``mark``: what to add to the environment where the run has no cgroup of its own;
  ``blank``: null, or [from, to], a folder made ahead, with an empty file for the claim: all that has a place below ``to`` is done below
  ``from``, and then that is renamed, so that it appears with the claim in it, and not at all where anything is there already;
  ``moves``: [from, to]…, what to rename first; ``writes``: [path, text]…, what to write then into files that are there, and empty;
  ``sync``: folders that must be durable with the claim; ``durable``: all of it before the program's first instruction,
  because the run must not be repeated even if the machine goes down, else a moment later); the answer has the same id and one of
  ``claim`` (it was executed, or failed to: see its exit), ``claimed`` (somebody else started that run) or ``error``
  (a sentence; nothing was started)
- an empty line asks for nothing
- ``{"exit": folder, "run": n, "data": {...}, "clean": bool}`` tells every connected agent; ``data`` is what ``N.exit``
  holds (``oom``: a process of the run was killed for the memory of its group),
  ``clean`` that the run had a cgroup and nothing is left in it. The file is written right after; or, unless the run is
  ``durable``, when nothing has been asked for 3 ms, which is waited for 50 ms

A run is claimed by the child itself, after fork and before exec: it links a complete ``N.claim`` into the folder, or renames a folder
that has one to where it belongs, which fails where one exists. So a run number is used at most once, whoever asks however often.

Forking an interpreter takes milliseconds, and entering a cgroup waits for every processor to pass through the
scheduler; so one child, the spare, is forked ahead and waits for a request in a cgroup of its own.
It has the file of its claim ready, without a name, and a stand-in that lives until the spare's address space is torn down. After a fork
either side has to copy each page that it writes to, so both go through the motions of a request before there is one.

``typing``, ``dataclasses`` and ``pathlib`` would double the memory that is the keeper's alone; they are not imported here.
"""
