"""The frozen vocabulary inside the agent: what is wanted, what is seen, what to do, how it is.

Nothing here does anything; drivers produce :class:`Observed`, the planner turns it into a
:class:`Plan`, the health function into :class:`Health`, the store remembers :class:`Head`.
"Boot seconds" are readings of the boot-time clock (see ``clock.py``).
"""

from boreas_agent.model.desired import Drained, Hold, Instance, InstanceName, Revision, RevisionKind
from boreas_agent.model.head import FALLEN_BACK, OUTCOMES, Deployment, Event, Good, Head, Health, Stage, Status
from boreas_agent.model.images import PulledImage
from boreas_agent.model.observed import Executed, Exit, Observed, Phase, Probed
from boreas_agent.model.output import STREAMS, OutputLine, OutputQuery, Stream
from boreas_agent.model.plan import Action, Check, Plan, PostStart, Prepare, PreStart, Reload, Remove, Rename, Resume, Start, Stop, Waiting
from boreas_agent.model.tried import Attempts, Checked, Deadline, ScriptRun, Turn

__all__ = [
    "FALLEN_BACK",
    "OUTCOMES",
    "STREAMS",
    "Action",
    "Attempts",
    "Check",
    "Checked",
    "Deadline",
    "Deployment",
    "Drained",
    "Event",
    "Executed",
    "Exit",
    "Good",
    "Head",
    "Health",
    "Hold",
    "Instance",
    "InstanceName",
    "Observed",
    "OutputLine",
    "OutputQuery",
    "Phase",
    "Plan",
    "PostStart",
    "PreStart",
    "Prepare",
    "Probed",
    "PulledImage",
    "Reload",
    "Remove",
    "Rename",
    "Resume",
    "Revision",
    "RevisionKind",
    "ScriptRun",
    "Stage",
    "Start",
    "Status",
    "Stop",
    "Stream",
    "Turn",
    "Waiting",
]
