"""The unpacker: takes one archive apart, in a process that may do nothing else.

A program of its own, because what decodes other people's archives is what they attack first: it has no privileges, no way out of the
folder it fills, no network, and a bound on memory, time and size. Standard library only, but for ``zstandard``.

Its standard input is the archive, its one argument a JSON object:

- ``folder``: an empty folder, which becomes its root; ``owner``: the user id (and group id) to become, null to stay
- ``kind``: ``tar``, ``zip`` or ``auto``; ``strip``: leading parts of every name to drop
- ``most_bytes``, ``most_entries``, ``ratio``, ``seconds``: bounds; ``parent``: the pid without which it ends
- ``libraries``: where ``zstandard`` is, empty where it is not needed

It answers with one line, ``{"entries"}`` or ``{"error"}``, the latter with ``"errno"`` where the system said so, and with
``"large": true`` where ``most_bytes`` were not enough. What it leaves is made of plain files, folders, and links that stay inside; whoever
uses it looks at that again (``boreas_agent.artifacts.tree``).
"""
