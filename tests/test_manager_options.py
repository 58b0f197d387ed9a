"""The public calls of `ckptfmt.manager`: an option that they do not have is one error that helps, and what 1.0 took
goes on, with a warning. tests/test_public_calls.py has what holds of the calls of all packages."""

from __future__ import annotations

import functools
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ckptfmt_jax
import numpy as np
import pytest
from peers import peer
from public import misspelt

import ckptfmt
import ckptfmt.manager
from ckptfmt.calls import keys_of, named_by
from ckptfmt.manager import (
    Background,
    Best,
    CheckpointManager,
    FlaxCheckpointManager,
    OpenOptions,
    RestoreOptions,
    RunReader,
    Schedule,
    StepOptions,
    open_flax_run,
    open_run,
)
from ckptfmt.manager.options import LoadOptions, ManagerOptions, RunOptions

ckptfmt_torch = peer("ckptfmt_torch")

PUBLIC = {name: getattr(ckptfmt.manager, name) for name in ckptfmt.manager.__all__}
ADAPTERS = dict.fromkeys(("device", "map_location", "weights_only"), ckptfmt_torch) | {"sharding": ckptfmt_jax}
# which it gives to `save`; by `share=` it says itself with which step a save shares
OF_THE_MANAGER = {"path", "tree", "overwrite", "metadata", "coordinator", "before_commit", "share_with"}


def calls() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function, and every method of a public class that is its own; making an object, too."""
    for name, value in PUBLIC.items():
        if not inspect.isclass(value):
            yield name, value
        elif name != "Policy" and not issubclass(value, BaseException | dict):
            yield name, value
            for method, found in inspect.getmembers(value, inspect.isfunction):
                if method[:1] != "_":
                    yield f"{name}.{method}", found


CALLS = dict(calls())


# ---- what stands there


def test_all_is_complete() -> None:
    """What this module does not name is private: it begins with an underscore, or is a module of the room."""
    there = {name for name, value in vars(ckptfmt.manager).items() if name[:1] != "_" and not inspect.ismodule(value)}
    assert there - {"annotations", "exports"} == set(PUBLIC)
    assert list(PUBLIC) == sorted(PUBLIC)


def test_a_manager_has_few_parameters() -> None:
    named = named_by(CheckpointManager) - keys_of(StepOptions)
    assert named == {"directory", "keep", *keys_of(ManagerOptions) - keys_of(StepOptions)}
    assert len(named) <= 10


def test_the_sets_are_those_of_the_calls() -> None:
    assert keys_of(StepOptions) - {"share", "history"} == named_by(ckptfmt.save) - OF_THE_MANAGER
    assert keys_of(LoadOptions) == named_by(ckptfmt.load) - {"path"}
    assert keys_of(RestoreOptions) >= (named_by(ckptfmt_torch.load) - {"path"}) | keys_of(LoadOptions)
    assert keys_of(OpenOptions) == named_by(ckptfmt.open) - {"path"}
    assert keys_of(RunOptions) == named_by(open_run) - {"directory"}


@pytest.mark.parametrize("name", ["save", "restore", "open", "lease", "steps", "damaged", "latest", "best"])
def test_managers_and_readers_call_alike(name: str) -> None:
    """What a manager hands on has the same parameters there."""
    owner, other = (CheckpointManager, FlaxCheckpointManager) if name == "save" else (CheckpointManager, RunReader)
    one, two = (inspect.signature(getattr(cls, name)) for cls in (owner, other))
    assert one.parameters == two.parameters


# ---- an option that is misspelt, or stands in the wrong place


@pytest.fixture
def run(tmp_path: Path) -> CheckpointManager:
    manager = CheckpointManager(tmp_path / "run", durable=False)
    manager.save(1, {"w": np.arange(3.0)})
    return manager


def options() -> Iterator[tuple[str, str]]:
    """Each call with each option that it has."""
    sets = {
        "CheckpointManager": StepOptions,
        "FlaxCheckpointManager": ManagerOptions,
        "open_flax_run": RunOptions,
        "restore": RestoreOptions,
        "open": OpenOptions,
    }
    for name, call in CALLS.items():
        found = inspect.signature(call).parameters.values()
        has = {one.name for one in found if one.kind is one.KEYWORD_ONLY or one.default is not one.empty}
        for option in sorted(has | (keys_of(sets[method]) if (method := name.rpartition(".")[2]) in sets else set())):
            yield name, option


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(ckptfmt.InputError) as caught:
        call()
    assert caught.value.code == "bad-option"
    return caught.value.message


def called(name: str, run: CheckpointManager, **given: Any) -> Any:
    """The call, with what it needs besides."""
    room, _, method = name.partition(".")
    reader = open_run(run.directory)
    if not method:
        needed = {"open_run": (run.directory,), "open_flax_run": (run.directory,)}
        if name.endswith("Manager"):
            needed[name] = (run.directory,)
        return PUBLIC[name](*needed.get(name, ()), **given)
    subjects = {"RunReader": reader, "CheckpointManager": run, "Schedule": Schedule()}
    subject = subjects.get(room) or FlaxCheckpointManager(run.directory)
    return getattr(subject, method)(*((1, {}) if method == "save" else ()), **given)


@pytest.mark.parametrize(("name", "option"), list(options()))
def test_a_misspelt_option(run: CheckpointManager, name: str, option: str) -> None:
    given: dict[str, Any] = {misspelt(option): None}
    if name.endswith(".restore") and option in ADAPTERS:
        given["load"] = ADAPTERS[option].load
    said = refused(lambda: called(name, run, **given))
    titles = {"restore": "restore() of a run", "open": "open() of a run"}
    title = titles.get(name.rpartition(".")[2], CALLS[name].__qualname__)
    title = f"ckptfmt.manager.{title}" if title.startswith("open_") else title
    assert said.startswith(f"{title} has no option {misspelt(option)!r}")
    assert ("did you mean " in said and repr(option) in said) or len(option) < 3  # which is near to nothing


MISPLACED: dict[str, tuple[Callable[[CheckpointManager], Any], str]] = {
    "of save, for the manager": (lambda run: CheckpointManager("run", overwrite=True), "CheckpointManager.save"),
    "of the manager, for save": (lambda run: run.save(2, {}, layout="loose"), "CheckpointManager"),
    "of ckptfmt.load, for save": (lambda run: run.save(2, {}, into={}), "restore() of a run"),
    "of Background, for flax": (lambda run: FlaxCheckpointManager("run", max_in_flight=2), "Background"),
    "of flax, for open_run": (lambda run: open_run("run", prefix="x"), "ckptfmt.manager.open_flax_run"),
    "of Schedule, for the manager": (lambda run: CheckpointManager("run", seconds=2), "Schedule"),
    "of torch": (lambda run: run.restore(device="cpu"), "restore(load=ckptfmt_torch.load)"),
    "of jax": (lambda run: run.restore(sharding=None), "restore(load=ckptfmt_jax.load)"),
    "of a load, for open": (lambda run: run.open(select="w"), "restore() of a run"),
    "of a manager that writes": (lambda run: open_run("run", keep=2), "CheckpointManager"),
}


@pytest.mark.parametrize("name", MISPLACED)
def test_a_misplaced_option(run: CheckpointManager, name: str) -> None:
    call, owner = MISPLACED[name]
    said = refused(lambda: call(run))
    assert owner in re.split("[iI]t is one of ", said)[1].split(" and ")
    assert [step.step for step in run.steps()] == [1], "and nothing happened"


# ---- what restore hands on


def test_options_go_to_the_load_that_is_called(run: CheckpointManager) -> None:
    assert run.restore(load=ckptfmt_torch.load, map_location="cpu")["w"].tolist() == [0, 1, 2]
    by_part = functools.partial(ckptfmt_torch.load, map_location="cpu")
    assert run.restore(load=by_part, select="w")["w"].tolist() == [0, 1, 2]
    for load in (ckptfmt_torch.load, by_part):
        assert "did you mean 'select'" in refused(lambda load=load: run.restore(load=load, selct="w"))
    assert run.restore(load=lambda path, **given: given, anything=1) == {"anything": 1}, "which only the call can tell"
    assert "has no option 'select'" in refused(lambda: run.restore(load=lambda path: path, select="w"))


# ---- what 1.0 took


def told(call: Callable[[], Any]) -> tuple[Any, list[str]]:
    """What a call gives, and its warnings, which point here."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = call()
    assert {(one.category, one.filename) for one in caught} == {(DeprecationWarning, __file__)}
    return found, [str(one.message).partition(", and goes on for one version: ")[2] for one in caught]


def test_background_as_it_was(tmp_path: Path) -> None:
    manager, said = told(lambda: CheckpointManager(tmp_path, max_in_flight=3, when_full="skip", at_exit="abort"))
    assert said == ["say background=Background(max_in_flight=, when_full=, at_exit=)"]
    assert (manager._worker.limit, manager._worker.finishes_at_exit, manager._skips) == (3, False, True)
    assert manager.save(1, {})
    for wrong in ({"max_in_flight": 0}, {"when_full": "drop"}, {"at_exit": True}):
        with pytest.warns(DeprecationWarning, match="Background"):
            refused(lambda wrong=wrong: CheckpointManager(tmp_path, **wrong))
    both = {"background": Background(), "at_exit": "wait"}
    assert "at_exit= stands beside background=" in refused(lambda: CheckpointManager(tmp_path, **both))


def test_mode_flax_as_it_was(tmp_path: Path) -> None:
    options = {"keep": 2, "keep_every_n_steps": 3, "prefix": "ckpt_", "durable": False}
    manager, said = told(lambda: CheckpointManager(directory=tmp_path, mode="flax", **options))
    assert said == ["say ckptfmt.manager.FlaxCheckpointManager"]
    assert type(manager) is FlaxCheckpointManager
    with manager:
        for step in [*range(8), 7.5]:
            manager.save(step, {"step": step})
    assert [step.step for step in manager.steps()] == [1, 4, 7, 7.5]
    manager.save(4, {"step": 40}, overwrite=True)
    assert [step.step for step in FlaxCheckpointManager(tmp_path, prefix="ckpt_").steps()] == [1, 4]
    manager, said = told(lambda: CheckpointManager(tmp_path, mode="flax", keep=None, max_in_flight=2))
    assert len(said) == 2
    assert "last 1" in repr(manager)


def test_modes_as_they_were(tmp_path: Path) -> None:
    manager, said = told(lambda: CheckpointManager(tmp_path, mode="ckptfmt", prefix="x", keep_every_n_steps=3))
    assert said == [
        "say CheckpointManager without mode=",
        "say ckptfmt.manager.FlaxCheckpointManager(prefix=)",
        "say ckptfmt.manager.FlaxCheckpointManager(keep_every_n_steps=)",
    ]
    assert type(manager) is CheckpointManager
    assert "mode=" in refused(lambda: CheckpointManager(tmp_path, mode="orbax"))

    class Own(CheckpointManager):
        """Somebody's."""

    assert "derived" in refused(lambda: Own(tmp_path, mode="flax"))
    assert isinstance(Own(tmp_path), Own)


def test_names_as_they_were() -> None:
    def old() -> Any:
        from ckptfmt.manager import Plan

        return Plan

    found, said = told(old)
    assert found is ckptfmt.manager.RetentionPlan
    assert set(said) == {"say ckptfmt.manager.RetentionPlan"}
    with pytest.raises(AttributeError, match="has no attribute 'Plam'"):
        _ = ckptfmt.manager.Plam


def test_what_is_new_does_not_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CheckpointManager(tmp_path, keep=Best("loss"), schedule=Schedule(), background=Background(2))
        FlaxCheckpointManager(tmp_path, background=Background(at_exit="abort"), prefix="x", durable=False)
        open_flax_run(tmp_path, prefix="x", best=Best("loss"))
