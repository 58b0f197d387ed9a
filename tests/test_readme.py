"""README.md: its Python runs from top to bottom, in an empty folder, and gives what its comments show."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from peers import peer

from ckptfmt.cli.app import cli

torch = peer("torch")

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"^\$ (.*?)(?:  #.*)?$", README, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def run(source: str, names: dict[str, Any]) -> dict[str, str]:
    """Run a block; gives what the comments behind expressions show, where that is a value, with what it was."""
    shown = {}
    lines = source.splitlines()

    class Shown(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> Any:
            comment = lines[(node.end_lineno or 1) - 1].partition("  # ")[2]
            if comment[:1] not in ("<", "{"):
                return node
            call = ast.parse(f"_show({comment!r}, 0)").body[0]
            assert isinstance(call, ast.Expr)
            assert isinstance(call.value, ast.Call)
            call.value.args[1] = node.value
            return call

    tree = ast.fix_missing_locations(Shown().visit(ast.parse(source)))
    exec(
        compile(tree, "README.md", "exec"),
        {**names, "_show": lambda comment, value: shown.update({comment: repr(value)})},
    )
    return shown


def test_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    use, stock = BLOCKS[:2]
    assert "(50257, 768)" in use
    shown = run(use.replace("(50257, 768)", "(2257, 8)"), {})
    assert len(shown) == 1
    for comment, value in shown.items():
        assert value == comment.replace("(50257, 768)", "(2257, 8)")
    run(stock, {"zarr": zarr})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt", "small.ckpt"]
    for line in SHELL:
        result = CliRunner().invoke(cli, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}: {result.output}"
    assert {line.split()[1] for line in SHELL} >= {"inspect", "verify", "convert", "diff", "repair"}
    made = {path.name for path in tmp_path.iterdir()} - {"model.ckpt", "small.ckpt"}
    assert made == {"model.safetensors", "salvaged.ckpt"}


def test_what_an_installation_brings() -> None:
    """The line that installs it names what comes with it, and extras that there are."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = re.findall(r"^pip install .*$", README, re.MULTILINE)
    (other,) = re.findall(r"^# other extras: (.*)$", README, re.MULTILINE)
    brought = re.findall(r"[\w-]+", line.partition("brings ")[2].partition(", and no")[0])
    assert {name.lower() for name in brought} - {"and"} == {
        re.split("[>=;]", need)[0].strip() for need in project["dependencies"]
    }
    extras = set(re.findall(r"\w+", line.partition("[")[2].partition("]")[0] + "," + other))
    assert extras <= set(project["optional-dependencies"])
    assert len(extras) > 8


def make_state() -> dict[str, Any]:
    return {"params": jnp.ones((2, 3)), "key": jax.random.key(0)}


def test_what_it_says_of_frameworks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = torch.nn.Linear(3, 4)
    names = {
        "ckptfmt": __import__("ckptfmt"),
        "jax": jax,
        "module": module,
        "optimizer": torch.optim.Adam(module.parameters()),
        "step": 3,
        "make_state": make_state,
        "state": make_state(),
    }
    run(BLOCKS[2], names)


def test_what_it_says_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = {"ckptfmt": __import__("ckptfmt"), "first": 0, "steps": 2001, "tree": {"x": np.ones(3)}, "loss": 1.5}
    run(BLOCKS[3], names)
    assert sorted(path.name for path in tmp_path.glob("runs/7/*.ckpt")) == [
        f"step-{step:010}.ckpt" for step in (0, 1000, 2000)
    ]
