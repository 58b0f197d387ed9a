"""A package that is missing is named wherever it can be missing, with the line that installs it."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest
from click.testing import CliRunner

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.packages import INSTALLED_BY, install

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# what everybody has
ALWAYS = {re.split(r"[<>=]", name)[0].replace("-", "_") for name in PROJECT["dependencies"]}


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make packages impossible to import, as if they were not installed."""

    def hide(*names: str) -> None:
        known = importlib.import_module("fsspec.registry")._registry
        for protocol in list(known):  # else it gives classes that were imported before
            monkeypatch.delitem(known, protocol, raising=False)
        for name in names:
            for module in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
                monkeypatch.delitem(sys.modules, module)
            monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
            parent, _, last = name.rpartition(".")
            if parent:  # a module imported before is an attribute, too
                monkeypatch.delattr(sys.modules[parent], last, raising=False)

    return hide


def hdf5(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["w"] = np.ones(3)
    return folder / "a.h5"


def blocks(folder: Path) -> Path:
    metadata = {"gguf.quantised": {"w": {"type": "Q8_0", "shape": [1, 32]}}}
    ckptfmt.save(folder / "b.ckpt", {"w": np.zeros((1, 34), np.uint8)}, metadata=metadata, durable=False)
    ckptfmt.convert(folder / "b.ckpt", folder / "b.gguf", durable=False)  # which requires no package
    return folder / "b.gguf"


def orbax_folder(folder: Path) -> Path:
    with orbax.checkpoint.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "a", {"w": jnp.ones(3)})
    return folder / "a"


def saved(folder: Path, **options: Any) -> Path:
    ckptfmt.save(folder / "a.ckpt", {"w": np.ones(3)}, durable=False, **options)
    return folder / "a.ckpt"


def progress_bar(_: Any) -> None:
    with ckptfmt.progress_bar("x"):
        """Nothing is shown."""


# a call that needs a package: the package, what is made before, the call, and the line
CALLS: dict[str, tuple[tuple[str, ...], Callable[[Path], Any], Callable[[Any], Any], str]] = {
    "read HDF5": (("h5py",), hdf5, lambda p: ckptfmt.convert(p, p.with_suffix(".ckpt")), "ckptfmt[hdf5]"),
    "write HDF5": (("h5py",), saved, lambda p: ckptfmt.convert(p, p.with_suffix(".h5")), "ckptfmt[hdf5]"),
    "dequantise GGUF": (("gguf",), blocks, lambda p: ckptfmt.stats(p, dequantize="float32"), "ckptfmt[gguf]"),
    "read Orbax": (("tensorstore",), orbax_folder, lambda p: ckptfmt.convert(p, f"{p}.ckpt"), "ckptfmt[orbax]"),
    "write torch": (("torch",), saved, lambda p: ckptfmt.convert(p, p.with_suffix(".pt")), "ckptfmt[torch]"),
    "blake3, written": (("blake3",), Path, lambda p: saved(p, digest="blake3"), "ckptfmt[blake3]"),
    "blake3, read": (("blake3",), lambda p: saved(p, digest="blake3"), ckptfmt.load, "ckptfmt[blake3]"),
    "a data frame": (("pandas",), saved, lambda p: ckptfmt.stats(p).to_pandas(), "pandas"),
    "a bar": (("rich",), Path, progress_bar, "ckptfmt[cli]"),
    **{
        f"{url} {call.__name__}": (
            hidden,
            Path,
            lambda _, url=url, call=call: call(f"{url}://bucket/x"),  # type: ignore[misc]
            extra,
        )
        for url, hidden, extra in (
            ("s3", ("tenacity",), "ckptfmt[s3]"),
            ("s3", ("s3fs",), "ckptfmt[s3]"),
            ("s3", ("tenacity", "s3fs"), "ckptfmt[s3]"),
            ("gs", ("gcsfs",), "ckptfmt[gs]"),
            ("abfs", ("adlfs",), "ckptfmt[az]"),
            ("https", ("aiohttp",), "ckptfmt[http]"),
            ("https", ("tenacity",), "ckptfmt[http]"),
            ("memory", ("tenacity",), "ckptfmt[remote]"),
        )
        for call in (ckptfmt.open, ckptfmt.load, ckptfmt.verify)
    },
    "saving to s3": (("tenacity",), Path, lambda _: ckptfmt.save("s3://bucket/x", {}), "ckptfmt[s3]"),
    "a directory on s3": (
        ("s3fs",),
        Path,
        lambda _: ckptfmt.save("s3://bucket/x", {}, layout="packed"),
        "ckptfmt[s3]",
    ),
    "a run on s3": (("s3fs",), Path, lambda _: ckptfmt.CheckpointManager("s3://bucket/x"), "ckptfmt[s3]"),
    "collecting on gs": (("gcsfs",), Path, lambda _: ckptfmt.gc("gs://bucket/x"), "ckptfmt[gs]"),
    "a folder on gs": (("gcsfs",), Path, lambda _: ckptfmt.verify_folder("gs://bucket/x"), "ckptfmt[gs]"),
    "obstore": (
        ("obstore", "ckptfmt.storage.obstore_engine"),
        Path,
        lambda _: ckptfmt.open("s3://bucket/x", storage_options={"engine": "obstore"}),
        "ckptfmt[obstore]",
    ),
}


@pytest.mark.parametrize("kind", CALLS)
def test_the_error_names_the_line_that_installs_it(tmp_path: Path, kind: str, hide: Callable[..., None]) -> None:
    names, before, call, extra = CALLS[kind]
    made = before(tmp_path)
    hide(*names)
    with pytest.raises(ckptfmt.CkptError) as raised:
        call(made)
    error = raised.value
    assert error.code == ("unknown-digest" if kind == "blake3, read" else "missing-package")
    assert isinstance(error, ckptfmt.UnsupportedError)
    assert f"pip install {shlex.quote(extra)}" in error.advice
    for name in names[:1] if "obstore" in kind else names:  # all that is missing
        assert name in error.message
    assert "disk" not in str(error)


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_a_framework(tmp_path: Path, framework: str, hide: Callable[..., None], monkeypatch: Any) -> None:
    path = saved(tmp_path)
    from ckptfmt.frameworks import adapter

    monkeypatch.setattr(adapter, "_registered", {})
    hide(framework, f"ckptfmt_{framework}")
    monkeypatch.delitem(sys.modules, f"ckptfmt_{framework}")
    with pytest.raises(ckptfmt.UnsupportedError) as raised:
        ckptfmt.load(path, framework=framework)
    assert raised.value.code == "missing-package"
    assert raised.value.advice == f"Install it: pip install 'ckptfmt[{framework}]'"


MODULES = {
    "ckptfmt.testing.strategies": "hypothesis",
    "ckptfmt.testing.adapters": "pytest",
    "ckptfmt_jax": "jax",
    "ckptfmt_torch.lightning": "lightning",
    "ckptfmt_torch.transformers": "transformers",
    "ckptfmt_torch": "torch",
}
IMPORTS = """
import sys
for module, package in {modules}.items():
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ckptfmt_torch", package)]:
        if package == "torch":
            del sys.modules[name]
    sys.modules[package] = None
    try:
        __import__(module)
    except ImportError as error:
        print(error)
    del sys.modules[package]
"""


def test_a_module_that_is_imported() -> None:
    """An ImportError, as programs expect it, in a process that has imported none of them."""
    pytest.importorskip("torch", reason="torch is not installed, and what stands on it says that first")
    code = IMPORTS.format(modules=MODULES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=240)
    lines = [f"{module} requires the package {package}: {install(package)}" for module, package in MODULES.items()]
    assert done.stdout.splitlines() == lines, done.stderr


def test_the_command_line(tmp_path: Path, hide: Callable[..., None]) -> None:
    code = "import sys; sys.modules['rich'] = None\nfrom ckptfmt.cli import main\nsys.exit(main(['ls', '--help']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "ckptfmt: the command line requires click and rich: pip install 'ckptfmt[cli]'\n"
    hide("tenacity")
    result = CliRunner().invoke(cli, ["inspect", "s3://bucket/x"])
    assert result.exit_code == 2
    assert result.stderr.endswith(
        "requires the package tenacity. Install it: pip install 'ckptfmt[s3]' [missing-package]\n"
    )


def test_a_package_that_is_broken_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "h5py.py").write_text("import something_that_is_not_there")
    path = hdf5(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "h5py"]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    with pytest.raises(ckptfmt.UnsupportedError, match="cannot be imported: No module named 'something_that"):
        ckptfmt.convert(path, tmp_path / "x.ckpt")


# findings/numcodecs-and-a-post-release-of-zfpy.sh
USES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "load": ("numcodecs", ckptfmt.load),
    "verify": ("numcodecs", ckptfmt.verify),
    "save": ("numcodecs", lambda path: saved(path.parent, compression="zstd")),
    "a run": ("numcodecs", lambda path: run_of_one(path.parent)),
    "a Zarr group": ("zarr", lambda path: ckptfmt.open(path).zarr),
    "write Zarr": ("zarr", lambda path: ckptfmt.convert(path, path.with_suffix(".zarr"))),
}


def run_of_one(folder: Path) -> None:
    with ckptfmt.CheckpointManager(folder / "run", compression="zstd") as run:
        run.save(1, {"w": np.ones(3)})


@pytest.mark.parametrize("use", USES)
def test_a_package_whose_import_fails_is_no_fault_of_the_file(
    tmp_path: Path, use: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor damage, for which a run would set a step aside."""
    name, call = USES[use]
    path = tmp_path / "b.ckpt"
    ckptfmt.save(path, {"w": np.zeros(1000)}, compression="zstd", durable=False)
    (tmp_path / f"{name}.py").write_text("int('post0')")
    monkeypatch.syspath_prepend(tmp_path)
    for key in [key for key in sys.modules if key.partition(".")[0] == name or ".zarr_" in key]:
        monkeypatch.delitem(sys.modules, key)
    importlib.invalidate_caches()
    with pytest.raises(ckptfmt.UnsupportedError, match=f"{name}, which cannot be imported: ValueError") as raised:
        call(path)
    assert raised.value.code == "missing-package"
    assert raised.value.advice == f"Install it anew: {install(name)}"


def test_every_line_installs_what_it_says() -> None:
    """Each extra of the table is one of the package, and brings what it is named for."""
    extras = PROJECT["optional-dependencies"]

    def brought(extra: str) -> set[str]:
        found: set[str] = set()
        for requirement in extras[extra]:
            nested = re.fullmatch(r"ckptfmt\[([\w,]+)\]", requirement)
            found |= (
                set().union(*map(brought, nested[1].split(",")))
                if nested
                else {re.split(r"[<>=\[; ]", requirement)[0].replace("-", "_")}  # as it is imported
            )
        return found

    for name, what in INSTALLED_BY.items():
        extra = re.fullmatch(r"ckptfmt\[(\w+)\]", what)
        assert name in brought(extra[1]) if extra else what == name, name


def test_every_import_of_what_may_be_missing_is_in_the_table() -> None:
    """No module imports a package that not everybody has but by the table, or where its own users have it."""
    own = {"ckptfmt", "ckptfmt_torch", "ckptfmt_jax", "ckptfmt_numpy"}
    known = {*ALWAYS, *INSTALLED_BY, *own, *sys.stdlib_module_names}
    for path in [*ROOT.glob("ckptfmt/**/*.py"), *ROOT.glob("adapters/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            tops = {str(name).partition(".")[0] for name in names}
            assert tops <= known, (path, tops)
