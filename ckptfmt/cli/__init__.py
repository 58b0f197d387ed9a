"""The command line `ckptfmt`: one module for each command.

Exit codes: 0 fine, 1 the checkpoint is damaged, 2 anything else that stands in the way (usage, no such path, no
checkpoint, unsupported), 3 `diff` found a difference, 130 interrupted, 141 the reader of the output went away.

click and rich come with the extra `cli`; nothing here is imported before they are known to be there. What says only
what there is, `ckptfmt --help` and `--version`, needs neither them nor the core.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DAMAGED, FAILED, DIFFERENT = 1, 2, 3
INTERRUPTED, PIPE_CLOSED = 130, 141  # 128 + SIGINT and SIGPIPE, as shells count


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line with `args` (those of the process by default) and give its exit code."""
    try:
        from . import overview

        if overview.answered(sys.argv[1:] if args is None else args):
            return 0
        from .app import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("click", "rich"):
            raise
        from ..packages import install

        print(f"ckptfmt: the command line requires click and rich: {install('click')}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return run(args)
