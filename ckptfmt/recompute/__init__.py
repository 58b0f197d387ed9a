"""Gradients of long computations in bounded memory: some states are kept, in memory and on a disk, and the others are
recomputed on the way back. A run that is killed goes on where it was, to the same gradient.

`gradient` does it for plain functions, `plan` says what it takes. `driver.Driver` carries out the actions of a schedule
on any `computation.Computation`.
"""

from __future__ import annotations

from ..on_demand import exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .costs import Costs
    from .gradients import gradient
    from .measuring import measure
    from .plans import PlannedSchedule, RecomputePlan, plan
    from .report import Gradient, RecomputeReport
    from .snapshots import SnapshotWarning

__all__ = [
    "Costs",
    "Gradient",
    "PlannedSchedule",
    "RecomputePlan",
    "RecomputeReport",
    "SnapshotWarning",
    "gradient",
    "measure",
    "plan",
]

_ON_DEMAND = {
    "Costs": "costs",
    "Gradient": "report",
    "PlannedSchedule": "plans",
    "RecomputePlan": "plans",
    "RecomputeReport": "report",
    "SnapshotWarning": "snapshots",
    "gradient": "gradients",
    "measure": "measuring",
    "plan": "plans",
}

__getattr__ = exports(__name__, _ON_DEMAND)
