"""Schema migrations (docs/spec/migrations.md): the parameter layout of a model changes, and its checkpoints follow.

Migrations are data: documents that name a schema, two of its versions, and rules. A chain of them is found in the
graph of versions, planned on names, shapes and dtypes alone, and then read lazily or written out.

- `patterns`, `sizes`, `operators`, `steps`, `document`: what a document says, parsed and checked
- `graph`: which documents lead from one version to another
- `plan`, `nodes`, `rearrange`, `casts`, `containers`: what they make of a checkpoint, without reading it
- `view`, `apply`, `keep`: reading it there, and writing it
- `formats`: the same for versions of the format itself
"""

from __future__ import annotations

from ..on_demand import exports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .apply import MigrationReport, provenance
    from .document import Migration
    from .graph import MigrationSet
    from .operators import Extern, LossClass, Spec
    from .plan import MigrationPlan

__all__ = ["Extern", "LossClass", "Migration", "MigrationPlan", "MigrationReport", "MigrationSet", "Spec", "provenance"]

__getattr__ = exports(
    __name__,
    {
        "Extern": "operators",
        "LossClass": "operators",
        "Migration": "document",
        "MigrationPlan": "plan",
        "MigrationReport": "apply",
        "MigrationSet": "graph",
        "Spec": "operators",
        "provenance": "apply",
    },
    former={"Loss": "LossClass"},
)
