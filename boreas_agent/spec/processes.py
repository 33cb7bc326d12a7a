"""Programs and scripts, as users ask for them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from boreas_agent.spec.artifacts import Artifacts, check_places
from boreas_agent.spec.common import Common
from boreas_agent.spec.fields import Seconds, Text, Words, misplaced
from boreas_agent.spec.files import ReleaseFiles, check_release_files
from boreas_agent.spec.hooks import Hooks
from boreas_agent.spec.logs import check_process_log
from boreas_agent.spec.resources import Ulimits, Umask
from boreas_agent.spec.schedules import Schedule


class Process(Common):
    """What binaries and scripts have: a release folder with what is fetched and written into it, and how their first process is set up.

    ``umask`` is 0022 where it is not given.
    """

    artifacts: Artifacts = ()
    files: ReleaseFiles = ()
    umask: Umask | None = None
    ulimits: Ulimits = Field(default_factory=dict)
    no_new_privs: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_process_log(self.log)
        if self.brings:
            check_places(self.artifacts)
            check_release_files(self.files, self.artifacts)
        return self

    @property
    def brings(self) -> bool:
        """Whether there is anything to be made ready in its release folder."""
        return bool(self.artifacts or self.files)


class BinaryPkg(Process):
    """A program. ``command`` is the program (absolute, or relative to the release folder) and its first arguments."""

    type: Literal["binary"]
    command: Annotated[Words, Field(min_length=1)]

    @model_validator(mode="after")
    def _has_program(self) -> Self:
        program = self.command[0]
        if not program:
            raise misplaced("command[0]", "the program must not be empty")
        if not program.startswith("/") and ".." in program.split("/"):
            raise misplaced("command[0]", f"the program must be absolute or inside the release folder, not {program[:200]!r}")
        return self

    @model_validator(mode="after")
    def _can_be_twice(self) -> Self:
        """Two instances of a program have one network: a probe could not tell on whose port it was answered."""
        if self.rollout.strategy != "start-first":
            return self
        for kind, probe in self.health.probes.items():
            port = getattr(probe.check, "port", None)
            if port is not None:
                raise misplaced(
                    "rollout.strategy",
                    f"start-first needs room for two instances, and both would use port {port}, which health.{kind} asks; use recreate",
                )
        return self


class ScriptPkg(Process):
    """A shell script, run once for each revision: the lines of ``command``, or ``script`` as one text.

    ``check`` is another script: where it ends with 0 all is as it should be, and the main script need not run. It is asked before
    and after each run, and every ``check_interval_seconds`` from then on. A run longer than ``timeout_seconds`` is stopped and has
    failed. ``retries``: how often a failed run is tried again (2), in place of ``restart.max_attempts``, which counts the first try
    too. With a ``schedule`` it runs at the times of that instead of once.
    """

    type: Literal["script"]
    command: Words = ()
    script: Annotated[Text, Field(min_length=1)] | None = None
    replicas: Annotated[int, Field(ge=0, le=1)] = 1
    check: Annotated[Text, Field(min_length=1)] | None = None
    check_interval_seconds: Annotated[Seconds, Field(ge=0.1)] = 60.0
    timeout_seconds: Annotated[Seconds, Field(gt=0)] | None = None
    schedule: Schedule | None = None
    retries: Annotated[int, Field(ge=0, lt=1_000_000)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.command) == (self.script is not None):
            raise misplaced("script", "give either command (the lines) or script (the text), one of them")
        if self.restart.policy == "always":
            raise misplaced("restart.policy", "'always' is not for scripts; use type binary for what should run for ever")
        if self.hooks != Hooks():
            raise misplaced("hooks", "a script has no hooks; what is to be done before or after it belongs into the script itself")
        for index, file in enumerate(self.files):
            if file.reloads:
                raise misplaced(f"files[{index}].on_change", "a script runs anew with each revision, and then reads its files; use restart")
        if self.rollout.strategy == "start-first":
            raise misplaced("rollout.strategy", "a script runs once and never beside another of its app; use recreate")
        return self

    @model_validator(mode="after")
    def _one_way_to_run_again(self) -> Self:
        if self.check is None and "check_interval_seconds" in self.model_fields_set:
            raise misplaced("check_interval_seconds", "says how often check is asked, and there is no check; give one, or leave this out")
        if self.check is not None and self.schedule is not None:
            raise misplaced("schedule", "a script runs when its check fails or at scheduled times, not both; put the check into the script")
        if self.retries is not None and self.restart.max_attempts is not None:
            raise misplaced("retries", "restart.max_attempts says the same (it counts the first try, too); give one of them")
        if self.retries and self.restart.policy == "never":
            raise misplaced("retries", "restart.policy 'never' tries nothing again; leave one of them out")
        return self
