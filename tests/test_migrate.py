"""Plans of migrations: what rules make of a tree, and their faults."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from migrations import W, X, document, faults, migrated, refusal, saved

import ckptfmt
from ckptfmt import Extern, InputError, Migration, MigrationSet
from ckptfmt.format.names import path_label
from ckptfmt.migration import LossClass, Spec
from ckptfmt.reading.blocks import BlockReader


def test_rules_are_applied_at_once(tmp_path: Path) -> None:  # [MIG-005]
    swap = migrated(tmp_path, {"a": W, "b": X}, {"from": "a", "to": "b"}, {"from": "b", "to": "a"})
    assert swap["a"].shape == X.shape
    assert swap["b"].shape == W.shape


def test_numbers_are_computed(tmp_path: Path) -> None:
    tree = {f"h.{i}": np.full(2, i) for i in range(3)}
    result = migrated(tmp_path, tree, {"from": "h.{i:int}", "to": "h.{2*i+1}"})
    assert {name: array.tolist() for name, array in result.items()} == {"h.1": [0, 0], "h.3": [1, 1], "h.5": [2, 2]}


def test_every_fault_is_reported_at_once_and_nothing_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[MIG-011] [MIG-013]"""
    monkeypatch.setattr(BlockReader, "read", None)  # storage that forbids reads
    tree = {"a": W, "b": X, "c": W, "e.0": W, "e.2": W, "f.0": W, "g": {"x": X}, "p": 3, "left": X}
    found = faults(
        tmp_path,
        tree,
        {"from": "missing", "to": "m"},
        {"from": "a", "to": "twice"},
        {"from": "b", "to": "twice"},
        {"from": "c", "to": "c1"},
        {"from": "{name:c}", "to": "{name}.2"},
        {"from": "e.{i:int}", "with": [{"op": "stack", "axis": 0}], "to": "e"},
        {"from": ["f.{i:int}", "h.{i}"], "with": [{"op": "concat", "axis": 0, "sizes": [2, 2]}], "to": "f.{i}"},
        {"from": "g/x", "with": [{"op": "split", "axis": 0, "sizes": [1, 1]}], "to": ["g/y", "g/z"]},
        {"from": "p", "with": [{"op": "neg"}], "to": "p"},
        {"from": [], "with": [{"op": "fill", "value": 0, "shape": ["n"], "dtype": "int8"}], "to": "twice/below"},
        parameters={"n": None},
    )
    expected = [
        "the parameter 'n' was not given",
        "rule 0 (missing → m) matches nothing",
        "'twice' is produced by rule 1 (a → twice) and rule 2 (b → twice)",
        "'c' is consumed by rule 3 (c → c1) and rule 4 ({name:c} → {name}.2)",
        "has the numbers [0, 2]",
        "there is no h.{i} for i = 0",
        "cannot be split into [1, 1]",
        "p is no tensor",
        "'left' is neither consumed nor dropped",
    ]
    for text in expected:
        assert any(text in fault for fault in found), text
    tree, rules = {"a": W, "b": X}, ({"from": "a", "to": "t"}, {"from": "b", "to": "t/below"})
    nested = faults(tmp_path, tree, *rules)
    assert nested == ("'t/below' would lie below the leaf 't'",)


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("model.layers.{i:int}.atn.weight", "; did you mean 'model.layers.{i:int}.attn.weight'?"),
        ("layers.{i:int}.attn.weight", "; did you mean 'model.layers.0.attn.weight' or 'model.layers.1.attn.weight'?"),
        ("{rest:**}.wieght", "; did you mean '{rest:**}.weight'?"),
        ("model/layers/0/attn/weight", "; did you mean 'model.layers.0.attn.weight'?"),
        ("vars/0", "; did you mean \"vars/'0'\"?"),
        ("zzz", ""),
    ],
)
def test_a_rule_that_matches_nothing_names_what_is_near(tmp_path: Path, written: str, hint: str) -> None:
    tree = {"model.layers.0.attn.weight": W, "model.layers.1.attn.weight": W, "vars": {"0": X}}
    found = faults(tmp_path, tree, {"from": written, "with": [{"op": "drop"}], "to": []}, rest="keep")
    assert len(found) == 1
    assert found[0].startswith("rule 0 (")
    assert found[0].endswith(f"matches nothing{hint}")


def test_a_label_is_a_pattern(tmp_path: Path) -> None:
    """[MIG-003]"""
    tree = {"vars": {"0": W, 0: X, "a/b": W}}
    rules = [{"from": path_label(("vars", key)), "to": f"new/{n}"} for n, key in enumerate(tree["vars"])]
    result = migrated(tmp_path, tree, *rules)
    assert [array.tolist() for array in result["new"]] == [W.tolist(), X.tolist(), W.tolist()]
    (tmp_path / "other").mkdir()
    assert migrated(tmp_path / "other", {"a": W}, {"from": "a", "to": "vars/'0'"})["vars"].keys() == {"0"}


@pytest.mark.parametrize(
    ("steps", "text"),
    [
        ([{"op": "rearrange", "pattern": "a -> a"}], "1 axes"),
        ([{"op": "rearrange", "pattern": "(a b) c -> a b c"}], "sizes of a, b"),
        ([{"op": "rearrange", "pattern": "(a b) c -> a b c", "axes": {"a": 3}}], "cannot be split"),
        ([{"op": "cast", "dtype": "int8"}], "cannot be cast"),
        ([{"op": "cast", "from": "float16", "dtype": "float64"}], "is float32, not float16"),
        ([{"op": "slice", "axis": 1, "before": 2, "after": 2}], "slice off"),
        ([{"op": "pad", "axis": 2, "after": 1}], "no axis 2"),
        ([{"op": "stack", "axis": 0}], "gathers"),
        ([{"op": "unstack", "axis": 0}], "takes one tensor"),
        ([{"op": "concat", "axis": 0, "sizes": [3]}], "sizes are [2], not [3]"),
        ([{"op": "fill", "value": 0, "shape": ["nothing"]}], "no value"),
    ],
)
def test_operators_that_do_not_fit_are_faults(tmp_path: Path, steps: Any, text: str) -> None:
    (fault,) = (f for f in faults(tmp_path, {"w": W}, {"from": "w", "with": steps, "to": "v"}, rest="keep"))
    assert text in fault


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"from": "w", "with": [{"op": "split", "axis": 0, "sizes": [1, 1]}], "to": "v"}, "2 items at the end for 1"),
        ({"from": ["w", "x"], "to": "v"}, "2 items at the end for 1"),
        (
            {"from": ["w", "x"], "with": [{"op": "split", "axis": 0, "sizes": [1]}], "to": "v"},
            "one tensor, not 2 items",
        ),
        ({"from": ["w", "x"], "with": [{"op": "fill", "value": 0}], "to": "v"}, "one source as its example"),
        ({"from": "w", "with": [{"op": "neg", "on": [1]}], "to": "v"}, "item 1 of 1"),
    ],
)
def test_a_wrong_number_of_items_is_a_fault_of_the_document(rule: Any, text: str) -> None:
    """[MIG-004] Nothing but the document is needed to see it."""
    with pytest.raises(InputError, match=text) as caught:
        Migration.parse(document(rule))
    assert caught.value.code == "bad-migration"


def test_a_list_is_stacked_and_not_joined(tmp_path: Path) -> None:
    """`split` could not give the list back, and an exact chain has to [MIG-014]."""
    rule = {"from": "w.{i:int}", "with": [{"op": "concat", "axis": 0, "sizes": [2, 2]}], "to": "w"}
    (fault,) = faults(tmp_path, {"w.0": W, "w.1": W}, rule)
    assert "concat takes tensors, not a list" in fault


def test_tensors_that_differ_are_not_joined(tmp_path: Path) -> None:
    step = {"op": "concat", "axis": 0, "sizes": [2, 4]}
    (fault,) = faults(tmp_path, {"a": W, "b": X}, {"from": ["a", "b"], "with": [step], "to": "c"})
    assert "float32 (2, 3) and int32 (4,) cannot be joined" in fault


def test_values_of_operators_that_lose(tmp_path: Path) -> None:
    tree = {"c": W, "s": X, "a": W, "d": W, "f": W}
    result = migrated(
        tmp_path,
        tree,
        {"from": "c", "with": [{"op": "cast", "dtype": "bfloat16"}], "to": "c"},
        {"from": "s", "with": [{"op": "slice", "axis": 0, "before": 1, "after": 1}], "to": "s"},
        {"from": "a", "with": [{"op": "add", "value": 1}, {"op": "scale", "by": 0.5}], "to": "a"},
        {"from": "d", "with": [{"op": "drop"}], "to": []},
        {"from": "f", "with": [{"op": "fill", "value": 1, "shape": ["2*n"], "dtype": "int8"}], "to": "g"},
        rest="keep",
        parameters={"n": 2},
    )
    assert result["c"].dtype.name == "bfloat16"
    assert result["s"].tolist() == [1, 2]
    np.testing.assert_array_equal(result["a"], (W + 1) / 2)
    assert result["g"].tolist() == [1, 1, 1, 1]
    assert {*result} == {"c", "s", "a", "f", "g"}


def test_containers_and_plain_values(tmp_path: Path) -> None:  # [MIG-015] [MIG-011]
    tree = OrderedDict(
        model={"blocks": (W, X), "named": {0: W, 1: X}, "empty": {}}, step=3, gone=None, other=[1, {"k": X}]
    )
    result = migrated(
        tmp_path,
        tree,
        {"from": "model/blocks/{i:int}", "to": "model/blocks/{i+0}"},
        {"from": "model/named/{i:int}", "to": "model/list/{i}"},
        {"from": "gone", "with": [{"op": "drop"}], "to": []},
        {"from": "step", "to": "training/step"},
        {"from": "other/1/k", "to": "other/1/k"},
    )
    assert type(result) is OrderedDict
    assert type(result["model"]["blocks"]) is tuple
    assert type(result["model"]["list"]) is list
    assert result["model"]["empty"] == {}
    assert result["training"] == {"step": 3}
    assert result["other"][0] == 1
    assert "gone" not in result


def test_a_chain_keeps_what_its_steps_keep(tmp_path: Path) -> None:  # [MIG-015]
    path = saved(tmp_path, {"a": (W, X), "b": {"x": X}})
    there = document({"from": "{rest:**}", "to": "moved/{rest}"})
    back = document({"from": "moved/{rest:**}", "to": "{rest}"}, start="2", end="3")
    with ckptfmt.open(path, schema="3", migrations=[there, back]) as view:
        assert type(view.tree["a"]) is list  # at version 2 it had no tuple to be like
    drop = document({"from": "{rest:**}", "with": [{"op": "drop"}], "to": []})
    ckptfmt.migrate(path, tmp_path / "empty", drop, schema="2")
    assert ckptfmt.load(tmp_path / "empty") == {}


def test_aliases_stay_aliases_and_copies_do_not(tmp_path: Path) -> None:  # [MIG-015]
    turn = {"op": "rearrange", "pattern": "a b -> b a"}
    path = saved(tmp_path, {"wte": W, "head": W, "z": X})
    ckptfmt.migrate(
        path,
        tmp_path / "dst",
        document(
            {"from": "{name:wte|head}", "with": [turn], "to": "{name}.weight"},
            {"from": "z", "to": "z"},
            {"from": "z", "with": [{"op": "alias"}], "to": "y"},
            {"from": "z", "with": [{"op": "copy"}], "to": "x"},
        ),
        schema="2",
    )
    tree = ckptfmt.load(tmp_path / "dst")
    assert tree["wte.weight"] is tree["head.weight"]
    assert tree["y"] is tree["z"]
    assert tree["x"] is not tree["z"]
    assert tree["x"].tolist() == X.tolist()


def test_companions_follow(tmp_path: Path) -> None:  # [MIG-016]
    model = {"a": W, "b": W, "c": W}
    tree = {"model": model, "m": {"a": W + 1, "c": W + 2}, "ema": {}, "rng": X}
    cast_up = {"op": "cast", "from": "float32", "dtype": "float64"}
    rules = [
        {"from": "a", "with": [cast_up, {"op": "pad", "axis": 0, "after": 1, "value": 9}], "to": "a2"},
        {"from": "b", "to": "b2"},
        {"from": "c", "with": [{"op": "fill", "value": 5}], "to": "new"},
    ]
    result = migrated(tmp_path, tree, *rules, at="model", companions=["m", "ema", "none"], rest="keep")
    assert {*result["model"]} == {"a2", "b2", "c", "new"}
    assert result["model"]["a2"].dtype == np.float64
    assert result["model"]["a2"][2].tolist() == [9, 9, 9]
    assert result["m"]["a2"].dtype == np.float32
    assert result["m"]["a2"][2].tolist() == [0, 0, 0]
    assert result["m"]["new"].tolist() == np.zeros((2, 3)).tolist()
    assert result["ema"] == {}
    assert result["rng"].tolist() == X.tolist()
    negated = {"from": "a", "with": [{"op": "neg"}], "to": "a"}
    (fault,) = faults(tmp_path, {"model": {"a": W}, "m": {"a": W}}, negated, at="model", companions=["m"], rest="keep")
    assert "no form for companions" in fault


def test_externs_are_given_by_the_program_alone(tmp_path: Path) -> None:  # [MIG-009]
    def rule(q: Spec, scale: Spec) -> tuple[Spec, ...]:
        if q.dtype != np.int8:
            raise ValueError("quantised weights are int8")
        return (Spec(q.shape, scale.dtype),)

    externs = {"dequantise@1": Extern(2, rule, lambda q, scale: ((q * scale).astype(scale.dtype),))}
    made = document({"from": ["q", "s"], "with": [{"op": "extern", "name": "dequantise@1"}], "to": "w"})
    assert "dequantise@1" in str(refusal("unknown-extern", MigrationSet, made))
    path = saved(tmp_path, {"q": np.array([[1, -2], [3, 4]], np.int8), "s": np.float32([[0.5], [2]])})
    with ckptfmt.open(path, schema="2", migrations=made, externs=externs) as view:
        assert view["w"].shape == (2, 2)
        assert view["w"][1].tolist() == [6, 8]
        assert view.plan.loss == LossClass.IRREVERSIBLE
    path = saved(tmp_path, {"q": X, "s": W})
    error = refusal("migration-mismatch", ckptfmt.open, path, schema="2", migrations=made, externs=externs)
    assert "quantised weights are int8" in str(error)


def test_parameters_come_from_the_call_the_document_or_the_metadata(tmp_path: Path) -> None:  # [MIG-010]
    made = document(
        {"from": "w", "with": [{"op": "split", "axis": 1, "sizes": ["a", "b"]}], "to": ["x", "y"]},
        parameters={"a": {"metadata": "config/a"}, "b": 1},
    )
    path = saved(tmp_path, {"w": W}, metadata={"config": {"a": 2}})
    for given, sizes in (({}, [2, 1]), ({"a": 0, "b": 3}, [0, 3])):
        with ckptfmt.open(path, schema="2", migrations=made, parameters=given) as view:
            assert [view["x"].shape[1], view["y"].shape[1]] == sizes
            assert view.plan.parameters == ({"a": sizes[0], "b": sizes[1]},)
    path = saved(tmp_path, {"w": W})
    assert "config/a" in str(refusal("migration-mismatch", ckptfmt.open, path, schema="2", migrations=made))
