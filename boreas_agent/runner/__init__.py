"""The runner: runs commands beside process instances (exec probes) on behalf of the agent, and does not outlive it.

A program of its own, because the agent must not fork: with its threads that is unsafe, with its memory slow, and a
working directory on a dead disk would stop every thread of it between fork and exec. Standard library only, as the keeper.

It is started with one end of a socket pair as its standard input. Lines of JSON, in any order:

- ``{"id", "program", "argv", "env", "cwd", "user", "opens", "seconds"}`` asks for a command (see ``boreas_agent.keeper``)
- ``{"cancel": id}`` ends it
- the answer is ``{"id", "status", "output"}`` (``status``: the raw wait status; ``output``: the last of both streams), with
  ``"late": true`` where it was killed after ``seconds``, or ``{"id", "error"}`` where it could not be executed

However a command ends, everything it has started ends with it: the runner is the reaper of its orphans, and kills those. When the
other end of the socket is closed, all of it ends. Should the runner itself be killed, its children are too (``PR_SET_PDEATHSIG``),
and where they have become another user, which undoes that, they have an alarm set.
"""
