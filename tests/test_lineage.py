"""Lineage: each program that makes a checkpoint of another says so, and what a source says otherwise is seen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from migrations import document
from peers import peer

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.maintenance.lineage import _step

safetensors = peer("safetensors.numpy")
RENAMED = document({"from": "a", "to": "b"})


@pytest.fixture
def chain(tmp_path: Path) -> list[Path]:
    """A file of safetensors, and what was made of it, one from the other."""
    safetensors.save_file({"a": np.arange(3.0)}, tmp_path / "0.safetensors")
    paths = [tmp_path / f"{n}.ckpt" for n in range(1, 4)]
    ckptfmt.convert(tmp_path / "0.safetensors", paths[0], schema=("s", "1"))
    ckptfmt.migrate(paths[0], paths[1], RENAMED, schema="2")
    ckptfmt.convert(paths[1], paths[2], digest="sha256")
    return paths


def sha256(path: Path) -> str:
    with ckptfmt.open(path) as checkpoint:
        return checkpoint.manifest_sha256


def test_each_step_is_recorded(chain: list[Path]) -> None:  # [LIN-001] [MIG-017]
    found = ckptfmt.lineage(chain[-1])
    assert [step.operation for step in found.steps] == ["convert", "migrate", "convert"]
    assert [step.source for step in found.steps] == [None, sha256(chain[0]), sha256(chain[1])]
    assert [step.path for step in found.steps] == [None, str(chain[0]), str(chain[1])]
    assert [step.agrees for step in found.steps] == [None, True, True]
    assert (found.ok, found.manifest_sha256) == (True, sha256(chain[-1]))
    assert found.steps[0].record["format"] == "safetensors"


def test_the_same_conversion_gives_the_same_bytes(tmp_path: Path, chain: list[Path]) -> None:  # [MAN-009]
    ckptfmt.convert(chain[1], tmp_path / "again", digest="sha256")
    assert (tmp_path / "again").read_bytes() == chain[2].read_bytes()


def test_sources_that_are_not_at_hand(tmp_path: Path, chain: list[Path]) -> None:
    chain[0].unlink()
    assert [step.path for step in ckptfmt.lineage(chain[2]).steps] == [None, None, str(chain[1])]
    assert [step.path for step in ckptfmt.lineage(chain[2], among=[]).steps] == [None] * 3
    (tmp_path / "elsewhere").mkdir()
    moved = chain[1].rename(tmp_path / "elsewhere" / "moved.ckpt")
    assert ckptfmt.lineage(chain[2], among=[moved]).steps[2].path == str(moved)
    ckptfmt.save(tmp_path / "first.ckpt", {"x": 1})
    assert ckptfmt.lineage(tmp_path / "first.ckpt").steps == ()


def test_a_patch_is_of_its_base(tmp_path: Path, chain: list[Path]) -> None:  # [LIN-002]
    """Its records are those of its result, which the base need not have; what it is applied to is the result again."""
    base, new, patch = tmp_path / "base.ckpt", chain[2], tmp_path / "p.ckpt"
    ckptfmt.save(base, {"b": np.arange(3.0), "more": np.ones(9)})
    ckptfmt.patch(base, new, patch)
    found = ckptfmt.lineage(patch)
    *before, last = found.steps
    assert [step.record for step in before] == [step.record for step in ckptfmt.lineage(new).steps]
    assert (last.operation, last.source, last.path, last.agrees) == ("patch", sha256(base), str(base), True)
    assert (last.record["result"].hex(), found.ok) == (sha256(new), True)
    assert ckptfmt.lineage(patch, among=[new]).steps[-1].path is None
    assert ckptfmt.apply(base, patch, tmp_path / "applied.ckpt").identical
    assert ckptfmt.lineage(tmp_path / "applied.ckpt").steps == ckptfmt.lineage(new).steps

    shown = CliRunner().invoke(cli, ["inspect", "--lineage", str(patch)]).output.split("\n")
    assert shown[1].startswith("  made by patch, ckptfmt ")
    said = json.loads(CliRunner().invoke(cli, ["inspect", "--lineage", "--json", str(patch)]).output)
    assert (said["steps"][-1]["source"], said["ok"]) == (sha256(base), True)


def forged(target: Path, records: Any) -> Path:
    ckptfmt.save(target, {"b": np.arange(3.0)}, digest="sha256", extra={"provenance": records})
    return target


def test_a_forged_lineage(tmp_path: Path, chain: list[Path]) -> None:  # [LIN-002]
    """It names a checkpoint that says otherwise of itself, or one that is not there."""
    source = {"operation": "convert", "generator": "x", "source": bytes.fromhex(sha256(chain[1]))}
    found = ckptfmt.lineage(forged(tmp_path / "forged.ckpt", [source]))  # without what the source says
    assert ([step.agrees for step in found.steps], found.ok) == ([False], False)
    absent = ckptfmt.lineage(forged(tmp_path / "absent.ckpt", [{**source, "source": bytes(32)}]))
    assert ([step.path for step in absent.steps], absent.ok) == ([None], True)


def test_a_lineage_that_is_changed_is_not_what_was_signed(tmp_path: Path, chain: list[Path]) -> None:
    from signing import pair

    private, public = pair(tmp_path)
    ckptfmt.sign(chain[2], private)
    assert ckptfmt.load(chain[2], trust=public)["b"][1] == 1
    with ckptfmt.open(chain[2]) as checkpoint:
        records = checkpoint.provenance
    records[1]["generator"] = "somebody else"
    chain[2].unlink()
    forged(chain[2], records)
    with pytest.raises(ckptfmt.SignatureError) as raised:
        ckptfmt.load(chain[2], trust=public)
    assert raised.value.code == "other-checkpoint"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.binary(max_size=40),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["operation", "source", "x"]), inner)
        ),
    )
)
def test_records_are_shown_whatever_they_are(record: Any) -> None:
    step = _step(msgpack.unpackb(msgpack.packb(record)))
    assert isinstance(step.operation, str)
    assert step.source is None or len(step.source) == 64


@pytest.mark.parametrize("records", [7, "x", {}, [], [7, None, [], {"operation": 3, "chain": [1]}]])
def test_the_command_shows_whatever_is_there(tmp_path: Path, records: Any) -> None:
    forged(tmp_path / "c.ckpt", records)
    for more in ([], ["--json"]):
        assert CliRunner().invoke(cli, ["inspect", "--lineage", *more, str(tmp_path / "c.ckpt")]).exit_code == 0


def test_the_command(tmp_path: Path, chain: list[Path]) -> None:
    done = CliRunner().invoke(cli, ["inspect", "--lineage", str(chain[2])])
    assert done.exit_code == 0
    assert [words in done.output for words in ("convert from safetensors", "migrate of s 1 to 2", "1.ckpt")] == [
        True
    ] * 3
    said = json.loads(CliRunner().invoke(cli, ["inspect", "--lineage", "--json", str(chain[2])]).output)
    assert [step["operation"] for step in said["steps"]] == ["convert", "migrate", "convert"]
    assert said["steps"][2]["source"] == sha256(chain[1])
