"""Names and strings that would take over a terminal: escapes, carriage returns, text from right to left. [SEC-005]"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from attack import OPENED, attempt, folder, hostile

TEXT = "\x1b]0;owned\x07\x1b[2J\r\n\u202egnp.exe\u2066\x9b31m\x7f\x00[bold red]markup[/]"


def command_line(path: Path) -> None:
    for command in (["inspect"], ["inspect", "--json"], ["verify"], ["verify", "--json"], ["get", "--json"], ["ls"]):
        done = subprocess.run(
            [sys.executable, "-m", "ckptfmt", *command, path], capture_output=True, timeout=60, check=False
        )
        text = done.stdout.decode() + done.stderr.decode()
        assert "Traceback" not in text, text[-2000:]
        bad = [character for character in text if not character.isprintable() and character != "\n"]
        assert not bad, f"{command}: {bad}"


def main() -> None:
    with folder() as here:

        def poison(document: dict[str, Any]) -> None:
            document["tree"] = [
                "dict",
                [TEXT, "x"],
                [["list", [["tensor", 0], TEXT]], ["tag", TEXT, TEXT, ["tensor", 1]]],
            ]
            document["generator"] = TEXT
            document["metadata"] = ["dict", [TEXT], [TEXT]]

        path = hostile(here / "x.ckpt", poison, layout="loose")
        attempt("escapes in every string", path, OPENED, actions=(command_line,))
        (path / "tensors" / "w" / "c" / "0").write_bytes(b"short")
        attempt("escapes in the names of what is damaged", path, OPENED, actions=(command_line,))


if __name__ == "__main__":
    main()
