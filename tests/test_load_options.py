"""Every option of a load goes through every call that loads, and does what it says there."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import ckptfmt_jax
import numpy as np
import pytest
from migrations import document
from peers import peer

import ckptfmt
from ckptfmt import CkptError
from ckptfmt.manager import CheckpointManager

ckptfmt_torch = peer("ckptfmt_torch")
torch = peer("torch")

W = np.arange(6, dtype=np.float32).reshape(2, 3)
B = np.arange(3, dtype=np.float32)
STATE = {"lin.w": W, "lin.b": B}
OTHER = {"a": W, "b": B}
RENAMED = [{"from": "a", "to": "lin.w"}, {"from": "b", "to": "lin.b"}]
BACK = [{"from": "lin.w", "to": "a"}, {"from": "lin.b", "to": "b"}]


class Case(NamedTuple):
    """What is stored, as what, and what loading it with the options gives. `linked`: in a folder whose files are links
    to others in it. `target`: only calls with a target have use for the option. `refused`: the targets with which calls
    cannot have it, and say so. `base`: what is stored is a patch of that, which lies in `apart/base.ckpt`."""

    stored: Any
    options: dict[str, Any]
    wanted: dict[str, Any] = STATE
    schema: tuple[str, str] | None = ("s", "1")
    damaged: bool = False
    linked: bool = False
    target: bool = False
    error: str | None = None
    refused: tuple[str, ...] = ()
    base: Any = None


def chain(*rules: Any, **more: Any) -> dict[str, Any]:
    return {"schema": "2", "migrations": document(*rules, **more)}


HALVES = [{"from": "lin.w", "with": [{"op": "scale", "by": 2}], "to": "a"}, BACK[1]]
ROWS = [{"from": "a", "with": [{"op": "rearrange", "pattern": "(r c) -> r c", "axes": {"r": "rows"}}], "to": "lin.w"}]
TWICE = [{"from": "a", "with": [{"op": "extern", "name": "twice@1"}], "to": "lin.w"}, RENAMED[1]]
EXTERNS = {"twice@1": ckptfmt.Extern(1, lambda a: (a,), lambda a: (a * 2,))}
PUBLIC_KEY = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=
-----END PUBLIC KEY-----
"""
BACKWARDS = {"schema": "1", "down": True}
CASES = {
    "prefix": Case({"model": STATE, "other": {"x": B}}, {"prefix": "model"}),
    "strip_prefix": Case({f"module.{name}": value for name, value in STATE.items()}, {"strip_prefix": "module."}),
    "add_prefix": Case({"w": W, "b": B}, {"add_prefix": "lin."}),
    "select": Case(STATE, {"select": "lin.w"}, {"lin.w": W}),
    "mmap": Case(STATE, {"mmap": True}, damaged=True, refused=("arrays", "like")),
    "verify": Case(STATE, {"verify": False}, damaged=True),
    "mismatched": Case(
        {"lin.w": W, "lin.b": np.ones(7, np.float32)},
        {"mismatched": "skip"},
        {"lin.w": W, "lin.b": np.zeros_like(B)},
        target=True,
    ),
    "strict": Case({"lin.w": W}, {"strict": False}, {"lin.w": W, "lin.b": np.zeros_like(B)}, target=True),
    "cast": Case({"lin.w": W.astype("f8"), "lin.b": B}, {"cast": True}, target=True),
    "progress": Case(STATE, {"progress": ...}),
    "max_bytes_in_flight": Case(STATE, {"max_bytes_in_flight": 1}),
    "on_match": Case(STATE, {"on_match": ...}, target=True),
    "limits": Case(STATE, {"limits": ckptfmt.Limits(manifest=10)}, error="limit-exceeded"),
    "follow_links": Case(STATE, {"follow_links": True}, linked=True),
    "base": Case(STATE, {"base": Path("apart/base.ckpt")}, base=OTHER),
    "storage_options": Case(STATE, {"storage_options": {"engine": "none"}}, error="bad-option"),
    "schema": Case(OTHER, chain(*RENAMED)),
    "migrations": Case(OTHER, chain(*RENAMED)),
    "source_schema": Case(OTHER, {**chain(*RENAMED), "source_schema": ("s", "1")}, schema=None),
    "down": Case(OTHER, {**chain(*BACK), **BACKWARDS}, schema=("s", "2")),
    "lossy": Case({"a": 2 * W, "b": B}, {**chain(*HALVES), **BACKWARDS, "lossy": True}, schema=("s", "2")),
    "parameters": Case(
        {"a": W.ravel(), "b": B},
        {**chain(*ROWS, RENAMED[1], parameters={"rows": {"metadata": "rows"}}), "parameters": {"rows": 2}},
    ),
    "trust": Case(STATE, {"trust": PUBLIC_KEY}, error="not-signed"),
    "externs": Case({"a": W / 2, "b": B}, {**chain(*TWICE), "externs": EXTERNS}),
}
TARGETS = {"into", "like", "framework"}  # which are the calls themselves


# ---- the calls


def module_of(wanted: dict[str, Any]) -> Any:
    root = torch.nn.Module()
    for name, value in wanted.items():
        *above, last = name.split(".")
        place = root
        for part in above:
            if part not in place._modules:
                place.add_module(part, torch.nn.Module())
            place = place._modules[part]
        place.register_parameter(last, torch.nn.Parameter(torch.zeros(value.shape)))
    return root


def arrays(tree: Any) -> dict[str, Any]:
    return {name: np.asarray(value) for name, value in tree.items()}


def blank(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: np.zeros_like(value) for name, value in wanted.items()}


def tensors(wanted: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.zeros(value.shape) for name, value in wanted.items()}


def taken(call: Callable[..., Any]) -> set[str]:
    """The options that a call names in its signature."""
    return {one.name for one in inspect.signature(call).parameters.values() if one.kind is one.KEYWORD_ONLY}


def opened(call: Callable[..., Any], path: Path, options: dict[str, Any], **also: Any) -> Any:
    """What a checkpoint loads that `call` opens; options go to the load if it has them."""
    of_load = {name: value for name, value in options.items() if name in taken(ckptfmt.Checkpoint.load)}
    of_open = {name: value for name, value in options.items() if name not in of_load}
    with call(path, **of_open) as checkpoint:
        return checkpoint.load(**of_load, **also)


def view(path: Path, options: dict[str, Any], **also: Any) -> Any:
    """Through a migration that changes nothing, where none is asked for."""
    if "schema" not in options:
        options = {**options, "schema": "same", "migrations": document(end="same", rest="keep")}
    return opened(ckptfmt.open, path, options, **also)


def put(source: Path, target: Path) -> None:
    """A copy in the place of another checkpoint; links stay links."""
    if source.is_file():
        shutil.copyfile(source, target)
    else:
        target.unlink()
        shutil.copytree(source, target, symlinks=True)


@contextmanager
def run_with(path: Path) -> Iterator[CheckpointManager]:
    """A run whose only step is the checkpoint."""
    folder = path.parent / "run"
    with CheckpointManager(folder) as manager:
        manager.save(1, {"x": 1})
        step = manager.latest()
        assert step is not None
        put(path, Path(step.path))
        yield manager


def restored(path: Path, options: dict[str, Any], **also: Any) -> Any:
    with run_with(path) as manager:
        return manager.restore(**options, **also)


def filled(load: Callable[..., Any], path: Path, options: dict[str, Any], wanted: Any, **also: Any) -> Any:
    module = module_of(wanted)
    load(path, options, into=module, **also)
    return {name: value.detach() for name, value in module.state_dict().items()}


def loaded(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda path, options, **also: call(path, **options, **also)


class Face(NamedTuple):
    call: Callable[[Path, dict[str, Any], dict[str, Any]], Any]
    target: str = ""


LOADS: dict[str, Callable[..., Any]] = {
    "ckptfmt.load": loaded(ckptfmt.load),
    "Checkpoint.load": lambda path, options, **also: opened(ckptfmt.open, path, options, **also),
    "Checkpoint.load at a version": view,
    "ckptfmt_torch.load": lambda path, options, **also: ckptfmt_torch.load(path, **options, **also),
}


def faces() -> Iterator[tuple[str, Face]]:
    for name, load in LOADS.items():
        yield name, Face(lambda path, o, wanted, load=load: load(path, o))
        yield f"{name} into arrays", Face(lambda path, o, w, load=load: load(path, o, into=blank(w)), "arrays")
        yield f"{name} into a module", Face(lambda path, o, w, load=load: filled(load, path, o, w), "module")
        yield f"{name} like tensors", Face(lambda path, o, w, load=load: load(path, o, like=tensors(w)), "like")

    def by_torch(path: Path, options: dict[str, Any], **also: Any) -> Any:
        return restored(path, options, load=ckptfmt_torch.load, **also)

    def load_into(path: Path, options: dict[str, Any], *, into: Any) -> Any:
        return ckptfmt_torch.load_into(path, into, **options)

    yield "load_into", Face(lambda path, o, wanted: filled(load_into, path, o, wanted), "module")
    yield "restore", Face(lambda path, o, wanted: restored(path, o))
    yield "restore by torch into a module", Face(lambda path, o, wanted: filled(by_torch, path, o, wanted), "module")
    yield "ckptfmt_torch.open", Face(lambda path, o, wanted: opened(ckptfmt_torch.open, path, o))
    yield "ckptfmt_jax.open", Face(lambda path, o, wanted: opened(ckptfmt_jax.open, path, o))
    yield "ckptfmt_jax.load", Face(lambda path, o, wanted: ckptfmt_jax.load(path, **o))
    yield "ckptfmt_jax.load like", Face(lambda path, o, wanted: ckptfmt_jax.load(path, blank(wanted), **o), "like")
    yield "numpy", Face(lambda path, o, wanted: ckptfmt.load(path, framework="numpy", **o))


FACES = dict(faces())


# ---- the tests


def test_no_option_is_forgotten() -> None:
    every = taken(ckptfmt.load) | taken(ckptfmt.Checkpoint.load) | taken(ckptfmt.open)
    assert every == CASES.keys() | TARGETS


def stored(folder: Path, case: Case) -> Path:
    path = folder / "c.ckpt"
    layout: dict[str, Any] = {"layout": "loose"} if case.linked else {}
    ckptfmt.save(path, case.stored, schema=case.schema, durable=False, **layout)
    if case.base is not None:
        (folder / "apart").mkdir()
        ckptfmt.save(folder / "apart/base.ckpt", case.base, durable=False)
        path.rename(folder / "new.ckpt")
        ckptfmt.patch(folder / "apart/base.ckpt", folder / "new.ckpt", path, durable=False)
    if case.linked:
        for file in [file for file in path.rglob("*") if file.is_file()]:
            file.rename(file.with_name(f"{file.name}.kept"))
            file.symlink_to(f"{file.name}.kept")
    if case.damaged:
        data = bytearray(path.read_bytes())
        data[data.index(W.tobytes())] ^= 1
        path.write_bytes(data)
    return path


def outcome(face: Face, path: Path, options: dict[str, Any], wanted: dict[str, Any]) -> Any:
    """What a call gives, or the code of what it raises."""
    try:
        return arrays(face.call(path, options, wanted))
    except CkptError as error:
        return error.code


@pytest.mark.filterwarnings("ignore::ckptfmt.UnknownTagWarning")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("option", CASES)
def test_it_does_what_it_says(tmp_path: Path, option: str, face: str) -> None:
    case, call = CASES[option], FACES[face]
    path = stored(tmp_path, case)
    calls: list[Any] = []
    options = {name: (lambda *a: calls.append(a)) if value is ... else value for name, value in case.options.items()}
    options |= {name: tmp_path / value for name, value in options.items() if isinstance(value, Path)}
    found = outcome(call, path, options, case.wanted)
    if case.error or call.target in case.refused:
        assert found == (case.error or "bad-option")
        return
    assert isinstance(found, dict), found
    if call.target or not case.target:
        assert found.keys() == case.wanted.keys()
        if not case.damaged:
            assert all(np.array_equal(found[name], value) for name, value in case.wanted.items())
        without = {name: value for name, value in options.items() if name != option}
        before = outcome(call, path, without if option != "schema" else {}, case.wanted)
        same = isinstance(before, dict) and before.keys() == found.keys()
        if ... in case.options.values():
            assert calls
        elif option != "max_bytes_in_flight":
            assert not same, "the option changed nothing"


def test_options_of_a_run_on_a_store_give_way(tmp_path: Path) -> None:
    with run_with(stored(tmp_path, CASES["select"])) as manager:
        step, run = manager.latest(), manager._run
        run.options = {"of": "the run"}
        assert step is not None
        for options, found in (({}, {"of": "the run"}), ({"storage_options": {"of": "the call"}}, {"of": "the call"})):
            assert run.load(step, lambda path, **given: given, options) == {"storage_options": found}


@pytest.mark.parametrize("adapter", [ckptfmt_torch, ckptfmt_jax], ids=["torch", "jax"])
@pytest.mark.parametrize("verb", ["load", "open"])
def test_the_framework_of_an_adapter_is_its_own(tmp_path: Path, adapter: Any, verb: str) -> None:
    path = stored(tmp_path, CASES["select"])
    with pytest.raises(ckptfmt.InputError, match=r"framework= is .* here"):
        getattr(adapter, verb)(path, framework="numpy")
