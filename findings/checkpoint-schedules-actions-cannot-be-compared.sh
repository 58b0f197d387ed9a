#!/usr/bin/env bash
# checkpoint_schedules 1.0.4: two actions cannot be compared, and three questions about schedules cannot be asked.
#
# CheckpointAction.__eq__ calls isinstance(self, other) with another action, and no class, so `==` of any two actions
# raises TypeError; `in` of a list, too. `is_running` looks for an attribute `_iter`, which is called `iter`, and is
# always False. DiskRevolve and PeriodicDiskRevolve have no number of snapshots on the disk (None), which
# uses_storage_type(DISK) compares with 0. HRevolve has no schedule of one step, as all others have.
#
# Seen: TypeError: isinstance() arg 2 must be a type; False after the first action; TypeError: '>' not supported;
# IndexError: list index out of range
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "checkpoint_schedules==1.0.4"
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys
from checkpoint_schedules import DiskRevolve, HRevolve, MultistageCheckpointSchedule, StorageType


def raises(kind, call):
    try:
        call()
    except kind as error:
        print(f"{kind.__name__}: {error}")
    else:
        sys.exit("checkpoint_schedules now answers")


schedule = MultistageCheckpointSchedule(3, 1, 0)
action = next(schedule)
raises(TypeError, lambda: action == action)
raises(TypeError, lambda: DiskRevolve(10, 2).uses_storage_type(StorageType.DISK))
raises(IndexError, lambda: HRevolve(1, 1, 1))
next(DiskRevolve(1, 1)), next(MultistageCheckpointSchedule(1, 1, 1))  # which have one
assert not schedule.is_running, "it is now"
print("a schedule that has given its first action is not running")
PYTHON
