"""Documents as their readers follow them: the blocks of a page, in order, as one program in one folder.

| block | what becomes of it |
|---|---|
| ```` ```python ```` | runs, in names that all blocks of the page share |
| ```` ```python title="train.py" ````, of any language | is written to that file |
| ```` ```console ```` | each line behind `$ ` is run; what stands below it is what it prints, with `...` for anything |
| `<!-- setup`, up to `-->` | runs as Python, and no reader sees it: what the words of the page take for granted |
| ```` ```json ```` | is read |
| ```` ```text ```` | is no program: a drawing, a message, a form |
"""

from __future__ import annotations

import doctest
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner

from ckptfmt.cli.app import cli

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(
    r"^```(?P<language>\w*)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<code>.*?)^```$|^<!-- setup\n(?P<setup>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)
RUNNERS = ("python", "console", "json")
DRAWN = ("text",)
TOLD = '; echo "exit code $?"'
INSTALL = re.compile(r"(python -m )?pip install ")
LENIENT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Block(NamedTuple):
    line: int
    language: str
    code: str
    title: str | None = None


def blocks(text: str) -> Iterator[Block]:
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start()) + 2
        if found["setup"] is not None:
            yield Block(line, "python", found["setup"])
        else:
            yield Block(line, found["language"], found["code"], found["title"])


def run_page(page: Path, names: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run the blocks of a page where we are; gives the names that its Python has made."""
    names = {"__name__": "__main__"} if names is None else names
    for block in blocks(page.read_text()):
        if block.title is not None:
            Path(block.title).parent.mkdir(parents=True, exist_ok=True)
            Path(block.title).write_text(block.code)
        elif block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.code, str(page), "exec"), names)
        elif block.language == "console":
            for command, printed in commands(block.code):
                run_command(command, printed, f"{page.name}:{block.line}")
        elif block.language == "json":
            json.loads(block.code)
        else:
            assert block.language in DRAWN, f"{page.name}:{block.line}: what is a block of {block.language!r}?"
    return names


def commands(code: str) -> Iterator[tuple[str, str]]:
    """What stands behind each `$ `, and what it is said to print."""
    for part in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        command, _, printed = part.partition("\n")
        while command.endswith("\\"):
            more, _, printed = printed.partition("\n")
            command = command[:-1] + more.removeprefix(">").strip()
        yield re.sub(r"  +# .*", "", command).strip(), printed


def run_command(command: str, printed: str, place: str) -> None:
    if INSTALL.match(command):
        return  # tests/test_packaging.py holds that the extras are there
    asked = command.removesuffix(TOLD)
    plain = asked.startswith("ckptfmt ") and not re.search(r"[|><;&$*`]", asked)
    code, output = ours(asked) if plain else shell(command)
    if plain and asked != command:
        code, output = 0, f"{output}exit code {code}\n"
    assert code == 0, f"{place}: {command} ended with {code}: {output}"
    if printed.strip():
        assert doctest.OutputChecker().check_output(printed.strip(), output.strip(), LENIENT), (
            f"{place}: {command} printed\n{output}\nand not\n{printed}"
        )


def ours(command: str) -> tuple[int, str]:
    """In this process, which has everything imported."""
    result = CliRunner(env={"COLUMNS": "120"}).invoke(cli, shlex.split(command)[1:])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def shell(command: str) -> tuple[int, str]:
    """By bash, with `ckptfmt` and `python` those of the tests."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "adapters"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"REPOSITORY": str(ROOT), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    environment |= {"COLUMNS": "120", "NO_COLOR": "1"}
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    line = f'ckptfmt() {{ {shlex.quote(sys.executable)} -m ckptfmt "$@"; }}; {command}'
    done = subprocess.run(
        ["bash", "-c", line], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    return done.returncode, done.stdout
