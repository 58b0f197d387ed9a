"""The command line as a whole: exit codes, streams, terminals and pipes, bad input and hostile checkpoints."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from damage import rewrite_manifest
from programs import ROOT, assert_plain, assert_safe, command, environment, on_terminal, real

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.cli.overview import COMMANDS as TABLE
from ckptfmt.cli.overview import HELP

COMMANDS = (["inspect"], ["verify"], ["get", "--", "w"])
ERROR_KEYS = {"code", "message", "advice", "path", "tensor", "chunk", "block", "offset", "found", "expected"}
ESCAPE = "\x1b[31m\x1b]0;owned\x07\x9b2J\x00\r\n[red]\u202e"


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.ckpt"
    ckptfmt.save(path, {"w": np.arange(12.0).reshape(3, 4), "lr": 0.1, "names": ["a", "b"]}, durable=False)
    return path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """A checkpoint whose tree fills more than a pipe's buffer."""
    path = tmp_path / "wide.ckpt"
    ckptfmt.save(path, {f"layer{number:05}": np.zeros(1, np.int8) for number in range(5000)}, durable=False)
    return path


# ---- the program


def test_version_and_help() -> None:
    assert run("--version").stdout == real("--version").stdout == f"ckptfmt {ckptfmt.__version__} (format 1.2)\n"
    assert run("-h").stdout == run("--help").stdout == real("--help").stdout == f"{HELP}\n"
    assert (run().exit_code, run().stderr) == (2, f"{HELP}\n")
    for name in ("inspect", "verify", "get"):
        shown = run(name, "--help")
        assert shown.exit_code == 0
        assert f"  ckptfmt {name} model.ckpt" in shown.stdout
        assert "--json" in shown.stdout
        assert name in run("-h").stdout


@pytest.mark.parametrize("name", TABLE)
def test_every_command_of_the_table_is_there(name: str) -> None:
    assert f"\n  {name} " in HELP
    assert run(name, "--help").stdout.startswith(f"Usage: cli {name} ")


@pytest.mark.parametrize("args", [["--help"], ["-h"], ["--version"]])
def test_the_overview_imports_nothing_but_itself(args: list[str]) -> None:
    code = f"import sys; from ckptfmt.cli import main; before = set(sys.modules); main({args}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    imported = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert imported - sys.stdlib_module_names - {"__main__"} == {"ckptfmt"}
    assert not imported & {"typing", "re", "collections", "dataclasses", "json"}, "each takes its part of the start"


def test_a_call_that_is_wrong_does_not_wait_for_the_core() -> None:
    for args in (["inspct"], ["--vers"]):
        code = f"import sys; from ckptfmt.cli import main; print(main({args}), 'numpy' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True)
        assert done.stdout == "2 False\n", done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["inspct", "x"], "No such command 'inspct'"),
        (["inspect"], "Missing argument 'PATH...'"),
        (["get", "x"], "Missing argument 'TENSOR'"),
        (["inspect", "x", "--depth", "-1"], "--depth"),
        (["inspect", "x", "--depth", "two"], "--depth"),
        (["get", "x", "t", "0", "y"], "unexpected extra argument (y)"),
        (["verify", "x", "y", "--resume", "z"], "--resume is for one PATH"),
        (["gett", "x"], "; did you mean 'get'?"),
        (["get", "x", "t", "0", "-1"], "unexpected extra argument (-1)"),
        (["get", "x", "-strange"], "Put -- before words that begin with -"),
        (["get", "x", "t", "--as", "object"], "--as"),
        (["verify", "--unknown", "x"], "--unknown"),  # in quotes or not, as click has it
    ],
)
def test_bad_calls_are_one_line_and_exit_2(args: list[str], words: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("ckptfmt: error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr
    assert "--help" in result.stderr
    assert_json_error(run(args[0], "--json", *args[1:]), "usage")


def assert_json_error(result: Result, code: str) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(result.stdout)["error"]
    assert set(error) == ERROR_KEYS
    assert error["code"] == code
    assert error["message"]
    assert result.stderr.count("\n") == 1
    return error


def test_exit_codes_of_real_processes(whole: Path, tmp_path: Path) -> None:
    assert real("verify", whole).returncode == 0
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(whole.read_bytes().replace(np.arange(12.0).tobytes(), np.ones(12).tobytes()))
    assert real("verify", damaged).returncode == 1
    assert real("get", damaged, "w").returncode == 1
    assert real("verify", tmp_path / "absent").returncode == 2
    assert real().returncode == 2


def test_importing_the_package_imports_neither_click_nor_rich() -> None:
    code = "import sys, ckptfmt, ckptfmt.cli; sys.exit(bool({'click', 'rich'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=120).returncode == 0


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_click_or_rich_one_line_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from ckptfmt.cli import main; sys.exit(main(['ls', '.']))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ckptfmt: the command line requires click and rich: pip install 'ckptfmt[cli]'\n"


# ---- streams


def test_a_pipe_gets_plain_text_that_is_neither_wrapped_nor_cut(whole: Path, tmp_path: Path) -> None:
    key = "k" * 90
    ckptfmt.save(tmp_path / "long.ckpt", {key: {"w": np.zeros((2, 3))}}, durable=False)
    shown = real("inspect", tmp_path / "long.ckpt", COLUMNS="20").stdout
    assert f"└── {key}" in shown.splitlines()
    for args in (["inspect", whole], ["verify", whole], ["get", whole, "w"], ["inspect", "absent"]):
        done = real(*args)
        assert "\x1b" not in done.stdout + done.stderr


def test_a_terminal_gets_colour_unless_it_is_refused(whole: Path) -> None:
    coloured = re.compile(r"\x1b\[[0-9;]*3[0-9]m")
    code, shown, _ = on_terminal("inspect", whole)
    assert code == 0
    assert coloured.search(shown)
    code, shown, _ = on_terminal("inspect", whole, NO_COLOR="1")
    assert code == 0
    assert not coloured.search(shown)
    assert "float64" in shown


def test_json_has_no_colour_on_a_terminal(whole: Path) -> None:
    for args in COMMANDS:
        code, shown, _ = on_terminal(args[0], "--json", whole, *args[1:])
        assert code == 0
        json.loads(shown)
        assert shown.rstrip("\r\n").isprintable()


def test_an_ascii_terminal_gets_ascii(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"値": {"w": np.zeros(2)}, "b": 1}, durable=False)
    done = real("inspect", tmp_path / "x.ckpt", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "|-- \\u5024" in done.stdout
    assert "`-- b" in done.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_pipe_that_closes_early_ends_the_program_quietly(wide: Path, options: list[str]) -> None:
    with subprocess.Popen(
        command("inspect", wide, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(120) == 141


def test_an_interrupt_ends_the_program_with_130_and_no_traceback(wide: Path) -> None:
    with subprocess.Popen(
        command("inspect", wide), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1)  # it now fills a pipe that nobody empties
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr.read() == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("args", [["inspect"], ["inspect", "--json"], ["verify"]])
def test_an_output_that_cannot_be_written_is_one_line(whole: Path, args: list[str]) -> None:
    for path in (whole, "absent"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                command(*args, path), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), timeout=120
            )
        assert done.returncode == 2
        assert done.stderr.startswith("ckptfmt: error: ")
        assert done.stderr.count("\n") == 1


def test_a_closed_stdout_or_stderr_is_no_error(whole: Path) -> None:
    for redirect, code in (("1>&-", 0), ("2>&-", 0), ("1>&- 2>&-", 0)):
        done = subprocess.run(
            ["sh", "-c", f'"$@" {redirect}', "sh", *command("inspect", whole)], env=environment(), timeout=120
        )
        assert done.returncode == code


# ---- bad input


def _file(data: bytes) -> Callable[[Path, Path], object]:
    return lambda whole, path: path.write_bytes(data)


def _version(whole: Path, path: Path) -> None:
    path.write_bytes(whole.read_bytes().replace(b"ckptfmt/1.0 file", b"ckptfmt/9.0 file"))


def _changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path, Path], None]:
    def make(whole: Path, path: Path) -> None:
        shutil.copy(whole, path)
        rewrite_manifest(path, change)

    return make


def _without_record(whole: Path, path: Path) -> None:
    path.write_bytes(whole.read_bytes()[:-300])


BAD: dict[str, tuple[str, int, Callable[[Path, Path], object]]] = {
    "nothing": ("not-found", 2, lambda whole, path: None),
    "empty file": ("not-a-checkpoint", 2, _file(b"")),
    "text": ("not-a-checkpoint", 2, _file(b"hello\n" * 100)),
    "7-Zip": ("not-a-checkpoint", 2, _file(b"7z\xbc\xaf\x27\x1c" + bytes(100))),
    "empty directory": ("not-a-checkpoint", 2, lambda whole, path: path.mkdir()),
    "pipe": ("not-a-checkpoint", 2, lambda whole, path: os.mkfifo(path)),
    "newer format": ("newer-format", 2, _version),
    "unknown feature": ("unknown-feature", 2, _changed(lambda d: d["requires"].append("\x1b[31mmagic"))),
    "unknown dtype": ("unknown-dtype", 2, _changed(lambda d: d["tensors"].update(dtype=["float7\n"]))),
    "unknown codec": ("unknown-codec", 2, _changed(lambda d: d["codecs"][0].append({"name": "rot13\x07"}))),
    "truncated": ("truncated", 1, _without_record),
    "bad manifest": ("bad-manifest", 1, _changed(lambda d: d.update(tree=["evil\x1b[2J"]))),
    "bad extent": ("bad-extent", 1, _changed(lambda d: d["parts"][0]["chunks"].update(offset=b"\xff" * 8))),
}


@pytest.mark.parametrize("kind", sorted(BAD))
@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: args[0])
def test_bad_input_is_one_line_with_its_code(whole: Path, tmp_path: Path, args: list[str], kind: str) -> None:
    code, exit_code, make = BAD[kind]
    path = tmp_path / "bad.ckpt"
    make(whole, path)
    result = run(args[0], path, *args[1:])
    assert result.exit_code == exit_code
    assert_safe(result)
    if exit_code == 1 and args == ["verify"]:  # damage is what a verification reports
        assert code in result.stdout
        assert json.loads(run("verify", "--json", path).stdout)["damage"][0]["code"] == code
        return
    assert result.stdout == ""
    assert result.stderr.startswith(f"ckptfmt: error: {path}: ")
    assert result.stderr.endswith(f"[{code}]\n")
    error = assert_json_error(run(args[0], "--json", path, *args[1:]), code)
    assert error["path"] == str(path)
    assert error["advice"]


def test_a_temporary_is_no_checkpoint(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / ".x.1234.ckptfmt-tmp"
    shutil.copy(whole, path)
    for args in COMMANDS:
        result = run(args[0], path, *args[1:])
        assert result.exit_code == 2
        assert result.stderr.endswith("[temporary]\n")


@pytest.mark.parametrize("name", ["[red]x", "a\x1b[31m\nb", "-dash", "値 x", os.fsdecode(b"\xff\xfe")], ids=ascii)
def test_odd_file_names_work_and_are_shown_safely(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(whole, name)
    for args in COMMANDS:
        result = run(args[0], "--", name, *[word for word in args[1:] if word != "--"])
        assert result.exit_code == 0
        assert_safe(result)
    assert json.loads(real("inspect", "--json", "--", name).stdout)["path"] == name
    missing = real("inspect", "--", f"{name}-absent")
    assert missing.returncode == 2
    assert missing.stderr.count("\n") == 1
    assert_plain(missing.stderr)


# ---- hostile checkpoints


def test_control_characters_and_markup_in_a_checkpoint_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "hostile.ckpt"
    tree = {
        ESCAPE: {ESCAPE: np.zeros(2), "long": [ESCAPE] * 100},
        "[bold]key[/bold]": "[link=http://x]text[/link] :smile:",
        "bytes": ESCAPE.encode(),
        "str_": np.str_(ESCAPE),
    }
    schema = ckptfmt.Schema(ESCAPE, ESCAPE)
    ckptfmt.save(path, tree, schema=schema, metadata={ESCAPE: [ESCAPE]}, durable=False)
    rewrite_manifest(path, lambda document: document.update(generator=ESCAPE))
    for args in (["inspect"], ["inspect", "-d", "1"], ["inspect", "-s", "**/long"], ["inspect", "-s", ESCAPE]):
        assert_safe(run(args[0], path, *args[1:]))
        assert_safe(run(args[0], path, *args[1:], "--json"))
    for key in ("", ESCAPE, f"{ESCAPE}/{ESCAPE}", f"{ESCAPE}/long", "bytes", "str_", "[bold]key[/bold]"):
        assert_safe(run("get", path, key))
        assert_safe(run("get", path, key, "--json"))
        assert_safe(run("get", path, key, ESCAPE))
        assert_safe(run("get", path, f"{key}{ESCAPE}", "--json"))
    shown = run("inspect", path).stdout
    assert "[bold]key[/bold]" in shown
    assert "'[link=http://x]text[/link] :smile:'" in shown
    assert json.loads(run("inspect", path, "--json").stdout)["generator"] == ESCAPE


def test_damage_in_a_hostile_checkpoint_is_shown_safely(tmp_path: Path) -> None:
    path = tmp_path / "hostile.ckpt"
    ckptfmt.save(path, {ESCAPE: np.arange(12.0)}, durable=False)
    path.write_bytes(path.read_bytes().replace(np.arange(12.0).tobytes(), np.ones(12).tobytes()))
    result = run("verify", path)
    assert result.exit_code == 1
    assert_safe(result)
    assert_safe(run("verify", "--json", path))
    assert json.loads(run("verify", "--json", path).stdout)["damage"][0]["path"] == [ESCAPE]
    assert_safe(run("get", path, ESCAPE))


def test_unknown_tags_are_said_in_a_few_safe_lines(whole: Path) -> None:
    def tag(document: dict[str, Any]) -> None:
        items = [["tag", f"{ESCAPE}{number}", None, number] for number in range(1000)]
        document["tree"] = ["list", [["tag", ESCAPE, None, ["tensor", 0]], *items]]

    rewrite_manifest(whole, tag)
    for args in (["inspect", whole], ["inspect", whole, "--json"], ["get", whole, "0"]):
        result = run(*args)
        assert result.exit_code == 0
        assert_safe(result)
        assert 1 <= result.stderr.count("\n") < 10
        assert all(line.startswith("ckptfmt: warning: ") for line in result.stderr.splitlines())
    assert json.loads(run("inspect", whole, "--json").stdout)["tree"] == [{"$tensor": 0}, *range(1000)]


def test_a_tensor_too_large_for_memory_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ckpt"
    ckptfmt.save(path, {"w": np.zeros(12)}, compression="zstd", durable=False)
    huge = [1 << 58]
    rewrite_manifest(path, lambda document: document["tensors"].update(shape=[huge], grid=[huge]))
    assert run("inspect", path).exit_code == 0
    for args in (["-o", tmp_path / "x.npy"], ["--json"], ["0:10"], []):
        result = run("get", path, "w", *args)
        assert result.exit_code in (1, 2)
        assert_safe(result)
        assert result.stderr.count("\n") == 1
    assert not (tmp_path / "x.npy").exists()


def test_the_deepest_trees_are_shown(whole: Path) -> None:
    def deepen(document: dict[str, Any]) -> None:
        node: Any = ["tensor", 0]
        for number in range(256):
            node = ["dict", [number], [node]]
        document["tree"] = node

    rewrite_manifest(whole, deepen)
    path = "/".join(map(str, reversed(range(256))))
    for args in (["inspect", whole], ["inspect", whole, "-s", "255", "--json"], ["get", whole, path, "1"]):
        result = real(*args)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout


def test_int_keys_of_many_digits_are_handled_like_others(whole: Path) -> None:
    def enlarge(document: dict[str, Any]) -> None:
        key = ["int", (10**5000).to_bytes(3000, "big", signed=True)]
        document["tree"] = ["dict", [key, "w"], [1, ["tensor", 0]]]

    rewrite_manifest(whole, enlarge)
    for args in (["inspect", whole], ["inspect", whole, "--select", "w"], ["get", whole, "w"], ["verify", whole]):
        assert_safe(run(*args))
