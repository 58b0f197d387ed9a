"""The package of js/ as it is published: packed by npm, installed elsewhere, imported and checked by its types."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from javascript import JS, node
from pages import blocks

import ckptfmt

USE = """
import { CkptError, open, isTensor } from "ckptfmt";
const checkpoint = await open("model.ckpt");
const tensor = await checkpoint.tensor("model/w");
const { shape, data } = await tensor.read([1]);
const entries = await checkpoint.children("model");
const code = await open("nothing.ckpt").catch((error) => (error instanceof CkptError ? error.code : "other"));
console.log(JSON.stringify({
  shape, data: [...data], array: data.constructor.name, loss: checkpoint.metadata.get("loss"), code,
  step: String(await checkpoint.value("step")), keys: entries.map(({ key }) => key), damage: await checkpoint.verify(),
  tree: isTensor((await checkpoint.tree()).get("model").get("w")), node: process.versions.node,
}));
await checkpoint.close();
"""
TYPED = """
import { open, isTensor, type Checkpoint, type NDArray, type Value } from "ckptfmt";
export async function first(file: File): Promise<NDArray> {
  const checkpoint: Checkpoint = await open(file, { verify: false });
  const value: Value = await checkpoint.value(["model", 0]);
  if (!isTensor(value)) throw new Error("no tensor");
  return value.read([0, { start: 1, stop: 3 }, null]);
}
// @ts-expect-error: a number is nothing to open
open(5);
"""


def run(words: list[str], cwd: Path) -> str:
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty project that has installed what `npm pack` gives."""
    node()
    folder = tmp_path_factory.mktemp("project")
    [packed] = json.loads(run(["npm", "pack", "--json", "--ignore-scripts", "--pack-destination", str(folder)], JS))
    (folder / "package.json").write_text('{"name": "user", "private": true, "type": "module"}')
    install = ["npm", "install", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"]
    run([*install, str(folder / packed["filename"])], folder)
    (folder / "files.json").write_text(json.dumps(sorted(one["path"] for one in packed["files"])))
    tree = {"step": 7, "model": {"w": np.arange(6, dtype=np.float16).reshape(2, 3), "b": np.zeros(2)}}
    ckptfmt.save(folder / "model.ckpt", tree, metadata={"loss": 0.5}, durable=False)
    return folder


def test_what_is_packed(project: Path) -> None:
    files: list[str] = json.loads((project / "files.json").read_text())
    assert {"LICENSE", "README.md", "package.json", "dist/index.js", "dist/index.d.ts"} <= {*files}
    sources = {path.stem for path in (JS / "src").glob("*.ts")}
    built = {f"dist/{name}.{end}" for name in sources for end in ("js", "d.ts")}
    assert {*files} - {"LICENSE", "README.md", "package.json"} == built, "js/dist has what js/src has not: make js anew"


def test_it_is_imported_and_reads(project: Path) -> None:
    (project / "use.js").write_text(USE)
    found: dict[str, Any] = json.loads(run([node(), "use.js"], project))
    version = found.pop("node")
    assert int(version.split(".")[0]) >= 20
    assert found == {
        "shape": [3],
        "data": [3, 4, 5],
        "array": "Float32Array",
        "loss": 0.5,
        "code": "not-found",
        "step": "7",
        "keys": ["w", "b"],
        "damage": [],
        "tree": True,
    }


@pytest.mark.parametrize("resolution", ["NodeNext", "Bundler"])
def test_its_types(project: Path, resolution: str) -> None:
    (project / "typed.ts").write_text(TYPED)
    options = {
        "strict": True,
        "noEmit": True,
        "target": "ES2022",
        "lib": ["ES2022", "DOM"],
        "types": [],
        "module": "NodeNext" if resolution == "NodeNext" else "ESNext",
        "moduleResolution": resolution,
    }
    (project / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["typed.ts"]}))
    run([str(JS / "node_modules" / ".bin" / "tsc"), "-p", "."], project)


def test_the_blocks_of_the_readme_run(project: Path) -> None:
    blocks = re.findall(r"<!-- run -->\n```js\n(.*?)```", (JS / "README.md").read_text(), re.S)
    assert len(blocks) == 4
    (project / "readme").mkdir()
    tree = {
        "step": 1000,
        "model": {"wte": np.zeros((1000, 16), ml_dtypes.bfloat16)},
        "optimizer": {"betas": (0.9, 0.95)},
    }
    ckptfmt.save(project / "readme" / "model.ckpt", tree, metadata={"loss": 2.31}, durable=False)
    ckptfmt.save(project / "readme" / "other.ckpt", {}, durable=False)
    tree["model"]["wte"][0, 3] = 1.5
    ckptfmt.save(project / "readme" / "new.ckpt", tree, durable=False)
    paths = [project / "readme" / name for name in ("model.ckpt", "new.ckpt", "step.patch.ckpt")]
    ckptfmt.patch(*paths, durable=False)
    (project / "readme" / "readme.mjs").write_text("\n".join(blocks))
    said = run([node(), "readme.mjs"], project / "readme").splitlines()
    promised = re.findall(r"console\.log\(.*\); // (.*)", "\n".join(blocks))
    assert len(promised) == 8
    assert [line for line in promised if line not in said] == []
    assert said[0] == "file 1 2.31"


def test_the_program_of_the_how_to(project: Path) -> None:
    page = (JS.parent / "docs" / "howto" / "javascript.md").read_text()
    block = next(block for block in blocks(page) if block.title == "read.js")
    folder = project / "howto"
    folder.mkdir()
    (folder / "read.mjs").write_text(block.code)
    wte = np.arange(8000, dtype=np.float32).reshape(1000, 8).astype(ml_dtypes.bfloat16)
    ckptfmt.save(folder / "model.ckpt", {"model": {"wte": wte}}, durable=False)
    [promised] = re.findall(r"// (.*)", block.code)
    assert run([node(), "read.mjs"], folder).strip() == promised


def test_versions_agree() -> None:
    package = json.loads((JS / "package.json").read_text())
    spec = re.search(r"version ([0-9]+\.[0-9]+)", (JS.parent / "SPEC.md").read_text())
    assert spec is not None
    assert package["version"].startswith(f"{spec[1]}."), "major and minor version are those of the format"


def test_units() -> None:
    run([node(), "--test", *map(str, sorted((JS / "test").glob("*.test.js")))], JS)
