"""Options by the names that a command gives them: `--overwrite` where a message says `overwrite=True`."""

from __future__ import annotations

import re
from collections.abc import Callable

import click

# options that a command has under another name, by command and their name in Python
NAMES = {
    "convert": {"verify": "--no-verify"},
    "diff": {"source_format": "--from", "target_format": "--to"},
    "report": {"source_format": "--from", "target_format": "--to"},
    "migrate": {"migrations": "--migrations"},
    "sign": {"form": "--model-signing"},
    "verify": {"trust": "--signed-by"},
}
# options that messages name and no command may have; for those who call this from Python
ELSEWHERE = frozenset(
    """
    add_prefix allow_loss background base bases before_commit best block cast check compression coordinator
    copy_to externs extra follow_links framework grace history into keep kind layout like limits lossy max_expansion
    max_in_flight metadata metrics migrations mismatched mmap nest nice on_nan overwrite paged parameters
    per_process prefix progress replicas resume root schedule schema select share share_with skip
    source_format source_schema spectrum statistics storage_options stored strict strip_prefix target_format
    trust verify
    """.split()  # noqa: SIM905
)
_QUOTED = r"(?<!\w)'[^']*'|(?<!\w)\"[^\"]*\""
_VALUE = r"'[^']*'|\{[^}]*\}|\([\w, ]*\)|[\w.]*\w"
_OPTION = re.compile(rf"{_QUOTED}|(?P<before>, | or )?(?<![\w./=])(?P<name>[a-z]+(?:_[a-z]+)*)=(?P<value>{_VALUE})?")


def speller(command: click.Command | None) -> Callable[[str], str]:
    """What gives options of Python in a message the names that they have in a command; what is quoted stays."""
    if command is None:
        return str
    name = command.name or ""
    own = NAMES.get(name, {})
    options = {option.name: option for option in command.params if isinstance(option, click.Option)}

    def spelled(found: re.Match[str]) -> str:
        python, value = found["name"], (found["value"] or "").strip("'")
        if python is None or (python not in own and python not in options and python not in ELSEWHERE):
            return found[0]
        option = options.get(python)
        if python not in own and option is None:
            return "" if found["before"] else f"{found[0]} in Python"  # of several, what the command has is enough
        word = own.get(python) or (max(option.opts, key=len) if option else "")
        if value.startswith("("):
            value = "@".join(value[1:-1].split(", ")).upper()
        elif value.startswith("{"):
            value = ",".join(re.findall(r"'([^']*)'", value))
        value = "" if value in ("True", "False", "None") else value
        return f"{found['before'] or ''}{word}{' ' * bool(value)}{value}"

    def spell(text: str) -> str:
        return _OPTION.sub(spelled, text.replace("help() of the call", f"`ckptfmt {name} --help`"))

    return spell
