"""What is published: the wheel has what documents name, the sdist everything, and both work where nothing else is."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT = {
    ".git",
    ".gitattributes",
    ".github",
    ".gitignore",
    ".ci",
    ".pre-commit-config.yaml",
    ".venv",
}  # of the repository, not of what is published
PACKAGES = {"ckptfmt", "ckptfmt_jax", "ckptfmt_numpy", "ckptfmt_torch"}
SOURCES = """
import sys, setuptools
sys.argv = ["setup.py", "-q", "egg_info", "--egg-base", sys.argv[1]]
setuptools.setup()
"""
WHEEL = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"


def python(code: str, *args: object, cwd: Path, options: tuple[str, ...] = ("-W", "ignore")) -> str:
    command = [sys.executable, *options, "-c", code, *map(str, args)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def tracked() -> list[str]:
    """The files of the project, as git knows them, or all where there is no repository."""
    if (ROOT / ".git").exists():
        done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
        found = [name for name in done.stdout.split("\0") if name and (ROOT / name).exists()]
    else:
        found = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
    return [name for name in found if name.split("/")[0] not in LEFT and "__pycache__" not in name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of a copy of what it needs, without any network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked():
        if name.split("/")[0] in ("ckptfmt", "adapters", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    python(WHEEL, out, cwd=source)
    (found,) = out.glob("*.whl")
    return found


def test_the_sdist_is_complete(tmp_path: Path) -> None:
    python(SOURCES, tmp_path, cwd=ROOT)
    (listed,) = tmp_path.glob("*/SOURCES.txt")
    assert set(tracked()) <= set(listed.read_text().splitlines())


def test_the_wheel_has_the_packages_and_what_documents_name(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == PACKAGES
    sources = {name.removeprefix("adapters/") for name in tracked()}
    wanted = {name for name in sources if name.split("/")[0] in PACKAGES}
    assert {"ckptfmt/py.typed", "ckptfmt/migration/examples/llama.json", "ckptfmt_torch/py.typed"} <= wanted
    assert wanted <= names


def test_the_wheel_works_where_nothing_else_is(wheel: Path, tmp_path: Path) -> None:
    """With the packages that a bare installation brings alone: no zarr, fsspec, click or torch."""
    site, installed = tmp_path / "site", Path(sysconfig.get_path("purelib"))
    zipfile.ZipFile(wheel).extractall(site)
    for need in [*PROJECT["dependencies"], "typing_extensions"]:
        name = re.split("[>=;]", need)[0].replace("-", "_")
        for place in (*installed.glob(f"{name}"), *installed.glob(f"{name}.py"), *installed.glob(f"{name}.libs"),
                      *installed.glob(f"{name}-*.dist-info")):  # fmt: skip
            (site / place.name).symlink_to(place)
    code = """
import sys
sys.path.insert(0, sys.argv[1])
import ckptfmt, numpy as np, ml_dtypes
assert ckptfmt.__file__.startswith(sys.argv[1])
tree = {"w": np.arange(6.0), "b": np.ones(3, ml_dtypes.bfloat16), "n": 1}
for options in ({}, {"layout": "loose"}, {"layout": "packed"}, {"compression": "zstd"}, {"digest": "sha256"}):
    path = "c" + "".join(options.values())
    ckptfmt.save(path, tree, **options)
    assert ckptfmt.load(path)["w"].tolist() == tree["w"].tolist()
    assert ckptfmt.verify(path).ok
ckptfmt.convert("c", "c.safetensors", allow_loss=True)
assert ckptfmt.MigrationSet("example:llama").migrations
calls = [lambda: ckptfmt.open("c").zarr, lambda: ckptfmt.open("c").typed_zarr]
calls.append(lambda: ckptfmt.convert("cloose/tensors", "z.ckpt"))
for call in calls:
    try:
        call()
    except ckptfmt.UnsupportedError as error:
        print(error)
from ckptfmt.cli import main
assert main(["--version"]) == 0 and main(["ls", "."]) == 2
"""
    said = python(code, site, cwd=tmp_path, options=("-I", "-S", "-W", "error"))
    assert said.count("Install it: pip install 'ckptfmt[zarr]' [missing-package]") == 3
    assert "pip install 'ckptfmt[cli]'" in said


def test_every_extra_that_is_named_is_there() -> None:
    """In messages, documents and the project itself."""
    extras = set(PROJECT["optional-dependencies"])
    for name in tracked():
        if name.endswith((".py", ".md", ".toml")) and not name.startswith("tests/"):
            for named in re.findall(r"ckptfmt\[([a-z0-9, ]+)\]", (ROOT / name).read_text()):
                assert set(named.replace(" ", "").split(",")) <= extras, f"{name}: {named}"


def test_what_examples_import_comes_with_their_extra() -> None:
    brought: set[str] = {"ckptfmt", *PACKAGES}
    waiting = ["examples"]
    while waiting:
        for need in PROJECT["optional-dependencies"][waiting.pop()]:
            if need.startswith("ckptfmt["):
                waiting += need[len("ckptfmt[") : -1].split(",")
            brought.add(re.split("[><=;[]", need)[0].replace("scikit-learn", "sklearn"))
    brought |= {re.split("[>=;]", need)[0] for need in PROJECT["dependencies"]}
    own = {path.stem for path in (ROOT / "examples").glob("*.py")}
    for path in (ROOT / "examples").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names - own <= brought, path
