"""A run that began with flax.training.checkpoints and goes on here, by its rules: old steps are found and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from damage import leftovers

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.manager import CheckpointManager, FallbackWarning, FlaxCheckpointManager
from ckptfmt.testing import equal_trees

pytestmark = pytest.mark.filterwarnings("default")  # their warnings are theirs


def tree(step: int) -> dict[str, Any]:
    return {
        "params": {"b": np.arange(2, dtype=np.int32), "w": np.full((3, 2), step, np.float32)},
        "step": np.int32(step),
    }


@pytest.fixture(params=["msgpack", "orbax"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> FlaxCheckpointManager:
    """A directory with steps 1, 2 and 10 that flax wrote."""
    checkpoints = pytest.importorskip("flax.training.checkpoints")
    if request.param == "orbax":
        pytest.importorskip("tensorstore")
    before = checkpoints.config.flax_use_orbax_checkpointing
    checkpoints.config.update("flax_use_orbax_checkpointing", request.param == "orbax")
    try:
        for step in (1, 2, 10):
            checkpoints.save_checkpoint(tmp_path / "run", tree(step), step, keep=9)
    finally:
        checkpoints.config.update("flax_use_orbax_checkpointing", before)
    return FlaxCheckpointManager(tmp_path / "run", keep=3, durable=False)


def numbers(manager: CheckpointManager) -> list[Any]:
    return [step.step for step in manager.steps()]


def test_old_steps_are_found_and_read(run: CheckpointManager) -> None:
    assert numbers(run) == [1, 2, 10]
    assert run.latest().step == 10  # type: ignore[union-attr]
    found = run.restore()
    assert np.array_equal(found["params"]["w"], tree(10)["params"]["w"])
    assert equal_trees(run.restore(2, select="params/**"), {"params": tree(2)["params"]})
    into = tree(0)["params"]
    run.restore(1, select="params/**", into={"params": into})
    assert equal_trees(into, tree(1)["params"])
    with run.open(2) as checkpoint:
        assert checkpoint["params/w"][0].tolist() == [2, 2]
    latest = run.latest()
    assert latest is not None
    assert (dict(latest.metrics), latest.metadata) == ({}, None)
    assert latest.size > 0
    assert leftovers(Path(run.directory)) == []


def test_a_template_gives_the_state_of_the_framework(run: CheckpointManager) -> None:
    jax = pytest.importorskip("jax")
    pytest.importorskip("ckptfmt_jax")
    shapes = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, tree(0)))
    found = run.restore(like={"params": shapes["params"]}, select="params/**")
    assert isinstance(found["params"]["w"], jax.Array)
    assert found["params"]["w"].tolist() == tree(10)["params"]["w"].tolist()


def test_the_run_goes_on_as_flax_would(run: CheckpointManager) -> None:
    with pytest.raises(ckptfmt.ExistsError):
        run.save(10, {})
    run.save(11, {"a": 1})
    assert numbers(run) == [2, 10, 11], "keep=3 counts what flax wrote"
    assert run.restore() == {"a": 1}
    run.save(12, {"a": 2})
    run.save(13, {"a": 3})
    assert numbers(run) == [11, 12, 13]
    assert leftovers(Path(run.directory)) == []


def test_walking_back_to_what_flax_wrote(run: CheckpointManager) -> None:
    run.save(11, {"w": np.arange(100)})
    path = Path(run.latest().path)  # type: ignore[union-attr]
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(100).tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.warns(FallbackWarning, match="going back to step 10"):
        assert np.array_equal(run.restore(fallback=True)["params"]["w"], tree(10)["params"]["w"])


def test_a_second_directory_gets_what_is_saved_here(run: CheckpointManager, tmp_path: Path) -> None:
    with FlaxCheckpointManager(run.directory, keep=9, copy_to=tmp_path / "second") as both:
        both.save(11, {"a": 1})
    assert numbers(both) == [1, 2, 10, 11]
    assert numbers(FlaxCheckpointManager(tmp_path / "second")) == [11]


def test_the_table(run: CheckpointManager) -> None:
    result = CliRunner().invoke(cli, ["ls", run.directory, "--prefix", "checkpoint_", "--json"])
    assert [step["step"] for step in json.loads(result.stdout)["steps"]] == [1, 2, 10]


def test_damage_is_named(run: CheckpointManager) -> None:
    path = Path(run.steps()[0].path)
    if path.is_file():
        path.write_bytes(path.read_bytes()[:-5])
    else:
        (path / "_METADATA").write_text("{}")
    with pytest.raises(ckptfmt.CkptError) as caught:
        run.restore(1)
    assert caught.value.code == "bad-source"
    assert leftovers(Path(run.directory)) == []


def test_other_modes_do_not_see_them(run: CheckpointManager) -> None:
    assert numbers(CheckpointManager(run.directory)) == []
