"""What `ckptfmt --help` and `--version` say: the table of commands, without importing any of them."""

from __future__ import annotations

from .._version import NEWEST_FORMAT, __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

HELP_OPTIONS = ("-h", "--help")
VERSION = f"ckptfmt {__version__} (format {NEWEST_FORMAT[0]}.{NEWEST_FORMAT[1]})"

# command, which is the name of its module too, to what it does
COMMANDS = {
    "apply": "Write out what a patch makes of its base.",
    "completion": "Print what makes a shell complete commands and file names.",
    "convert": "Convert a checkpoint from, or to, another format.",
    "diff": "Say what differs between two checkpoints of any format.",
    "fold": "Join a chain of patches to one.",
    "gc": "Remove what saves that died have left.",
    "get": "Print or export one tensor, a slice of one, or a plain value.",
    "inspect": "Show the tree: tensors, plain values, totals; of any format.",
    "ls": "List the checkpoints of a run or of any folder.",
    "migrate": "Write a checkpoint at another version of its schema.",
    "patch": "Write what makes one checkpoint of another.",
    "prune": "Remove checkpoints of a folder, but the last, the best …",
    "recompute": "Plan gradients with few snapshots: steps, memory, disk, time.",
    "repair": "Save what is whole of a damaged checkpoint.",
    "report": "Write a page about a checkpoint, two of them, or a run.",
    "sign": "Sign a checkpoint, so that others know who made it.",
    "stats": "Show what values are like: least, greatest, mean, NaN, infinities.",
    "upgrade": "Write a checkpoint in the format version of today.",
    "verify": "Check every byte, and say what is damaged and where.",
    "view": "Look at checkpoints in a browser: numbers, heat maps, damage.",
}

HELP = f"""\
Usage: ckptfmt [OPTIONS] COMMAND [ARGS]...

  Look into ckptfmt checkpoints, check and compare them, take tensors out of
  them, migrate and convert them.

Options:
  --version   Show the version and exit.
  -h, --help  Show this message and exit.

Commands:
{chr(10).join(f"  {name:<10}  {does}" for name, does in COMMANDS.items())}

  Examples:
    ckptfmt inspect model.ckpt
    ckptfmt verify model.ckpt
    ckptfmt get model.ckpt model/wte 1000:2000 -o rows.npy
    ckptfmt convert model.safetensors model.ckpt
    ckptfmt diff before.ckpt after.ckpt

  `ckptfmt COMMAND --help` has more of them.

  Exit codes: 0 fine, 1 the checkpoint is damaged, 2 anything else, 130
  interrupted.\
"""


def answered(args: Sequence[str]) -> bool:
    """Say what is asked for, if it is nothing but an overview."""
    if len(args) != 1 or args[0] not in (*HELP_OPTIONS, "--version"):
        return False
    try:
        print(VERSION if args[0] == "--version" else HELP, flush=True)
    except OSError:  # which the boundary of all commands turns into a message
        return False
    return True
