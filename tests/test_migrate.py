"""Migrations: patterns, documents, the graph, faults of plans, lazy views and what they read, provenance."""

from __future__ import annotations

import json
import tracemalloc
from collections import OrderedDict
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

import ckptfmt
from ckptfmt import CkptError, Extern, Migration, MigrationSet
from ckptfmt.blocks import BlockReader
from ckptfmt.migration import Loss, Spec, provenance
from ckptfmt.migration.patterns import literal_path, parse_patterns, tokens_of
from ckptfmt.migration.sizes import evaluate, is_size
from ckptfmt.testing.equality import assert_same_tree


def document(*rules: Any, start: str = "1", end: str = "2", **more: Any) -> dict[str, Any]:
    return {"ckptfmt_migration": 1, "schema": "s", "from": start, "to": end, "rules": list(rules), **more}


def saved(folder: Path, tree: Any, name: str = "src", **options: Any) -> Path:
    ckptfmt.save(folder / name, tree, schema=("s", "1"), durable=False, overwrite=True, **options)
    return folder / name


def migrated(folder: Path, tree: Any, *rules: Any, **more: Any) -> Any:
    """What a document with these rules makes of a tree."""
    with ckptfmt.open_at(saved(folder, tree), "2", document(*rules, **more)) as view:
        return view.load()


def refusal(code: str, call: Any, *arguments: Any, **options: Any) -> CkptError:
    with pytest.raises(CkptError) as raised:
        call(*arguments, **options)
    assert raised.value.code == code
    return raised.value


def faults(folder: Path, tree: Any, *rules: Any, **more: Any) -> tuple[str, ...]:
    error = refusal("migration-mismatch", migrated, folder, tree, *rules, **more)
    assert "s: 1 → 2" in str(error)
    return tuple(error.report)


W = np.arange(6, dtype=np.float32).reshape(2, 3)
X = np.arange(4, dtype=np.int32)


# ---- patterns


@pytest.mark.parametrize(
    ("pattern", "path", "captures"),
    [
        ("a.b", ("a.b",), {}),
        ("a/b", ("a", "b"), {}),
        ("a/0", ("a", 0), {}),
        (["a", "0"], ("a", "0"), {}),
        (["a/b", 0], ("a/b", 0), {}),
        ("", (), {}),
        ("h.{i:int}.w", ("h.12.w",), {"i": 12}),
        ("h/{i:int}/w", ("h", 12, "w"), {"i": 12}),
        ("h/{i:digits}/w", ("h", "12", "w"), {"i": 12}),
        ("Dense_{i:int}/kernel", ("Dense_3", "kernel"), {"i": 3}),
        ("{{x}}.{i:0..3}", ("{x}.3",), {"i": 3}),
        ("h.{2*i+1:int}", ("h.7",), {"i": 3}),
        ("{b:attn|mlp}.w", ("mlp.w",), {"b": "mlp"}),
        ("a.{rest:**}.w", ("a.b", 1, "c.w"), {"rest": ("b", "/", 1, "/", "c")}),
        ("{rest:**}", ("a", 0), {"rest": ("a", "/", 0)}),
    ],
    ids=str,
)
def test_patterns_match_and_build_the_same_paths(pattern: Any, path: Any, captures: Any) -> None:  # [MIG-003]
    (parsed,) = parse_patterns([pattern])
    assert parsed.match(tokens_of(path)) == captures
    assert parsed.build(captures) == path


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("a.b", ("a", "b")),
        ("a", ("a.b",)),
        ("a", ("b",)),
        ("a/0", ("a", "0")),
        (["a", "0"], ("a", 0)),
        ("", ("a",)),
        ("a", ()),
        ("h.{i:int}", ("h.01",)),
        ("h.{i:int}", ("h.x",)),
        ("h/{i:int}", ("h", "1")),
        ("h/{i:int}", ("h", -1)),
        ("h/{i:digits}", ("h", 1)),
        ("h.{i:0..3}", ("h.4",)),
        ("h.{2*i+1:int}", ("h.6",)),
        ("h.{i+1:int}", ("h.0",)),
        ("{b:attn|mlp}.w", ("moe.w",)),
        ("a.{rest:**}", ("a",)),
        ("Dense_{i:int}", ("Dense_",)),
        ("{name}", (0,)),
        ("{name}", ("a.b",)),
    ],
    ids=str,
)
def test_patterns_do_not_match_more(pattern: Any, path: Any) -> None:  # [MIG-003]
    (parsed,) = parse_patterns([pattern])
    assert parsed.match(tokens_of(path)) is None


@pytest.mark.parametrize(
    "pattern", ["{", "{a}b", "x{a}", "{a}{b}", "{a}.{a}", "{a+1}", "{A}", "x1{i:int}", "{a:**}.{b:**}", "}", 3, [1.5]]
)
def test_bad_patterns_are_refused(pattern: Any) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        parse_patterns([pattern])


def test_captures_are_declared_in_one_way() -> None:
    with pytest.raises(ValueError, match="two ways"):
        parse_patterns(["a.{i:int}", "b.{i:digits}"])
    with pytest.raises(ValueError, match="captures"):
        literal_path("a.{i}")


def test_sizes() -> None:
    values = {"heads": 4, "dim": 64}
    sizes = {"heads": 4, "2*heads*dim": 512, "dim/heads - 1": 15, "1 + dim/heads*2": 33, 7: 7}
    assert [evaluate(size, values) for size in sizes] == [*sizes.values()]
    for size in ("dim/3", "heads-dim", "width", "dim/0"):
        assert is_size(size)
        with pytest.raises(ValueError, match=r"\S"):
            evaluate(size, values)
    assert not any(map(is_size, ("", "-1", "a b", "a**b", "(a)", -1, True, 1.5, None, "__import__('os')")))


# ---- documents


@pytest.mark.parametrize(
    "broken",
    [
        [],
        {},
        {**document(), "ckptfmt_migration": 2},
        {**document(), "more": 1},
        {**document(), "to": "1"},
        {**document(), "schema": ""},
        document(start=""),
        document(rest="drop"),
        document(companions="a"),
        document(parameters=[]),
        document(parameters={"n": "x"}),
        document(parameters={"n": -1}),
        document(at="{i:int}"),
        {**document(), "rules": {}},
        document("a"),
        document({"from": "a"}),
        document({"from": "a", "to": "b", "via": "c"}),
        document({"from": 3, "to": "b"}),
        document({"from": "a", "to": "b", "with": {}}),
        document({"from": "a", "to": "b", "optional": 1}),
        document({"from": "a", "to": []}),
        document({"from": [], "to": "b"}),
        document({"from": "a", "to": "b", "with": [{"op": "drop"}]}),
        document({"from": "a", "to": [], "with": [{"op": "drop"}, {"op": "neg"}]}),
        document({"from": "a", "to": "b", "with": [{"op": "neg"}, {"op": "copy"}]}),
        document({"from": "a", "to": "b", "with": [{"op": "exec"}]}),
        document({"from": "a", "to": "b", "with": [{}]}),
        document({"from": "a", "to": "b", "with": [{"op": "neg", "axis": 0}]}),
        document({"from": "a", "to": "b", "with": [{"op": "stack"}]}),
        document({"from": "a", "to": "b", "with": [{"op": "stack", "axis": -1}]}),
        document({"from": "a", "to": "b", "with": [{"op": "cast", "dtype": "float12"}]}),
        document({"from": "a", "to": "b", "with": [{"op": "scale", "by": 0}]}),
        document({"from": "a", "to": "b", "with": [{"op": "scale", "by": "2"}]}),
        document({"from": "a", "to": "b", "with": [{"op": "split", "axis": 0, "sizes": [1.5]}]}),
        document({"from": "a", "to": "b", "with": [{"op": "neg", "on": []}]}),
        document({"from": "a", "to": "b", "with": [{"op": "rearrange", "pattern": "a b -> a"}]}),
        document({"from": "a", "to": "b", "with": [{"op": "rearrange", "pattern": "a a -> a a"}]}),
        document({"from": "a", "to": "b", "with": [{"op": "rearrange", "pattern": "a (b -> a b"}]}),
        document({"from": "a", "to": "b", "with": [{"op": "rearrange", "pattern": "a b -> b a", "axes": {"c": 1}}]}),
        document({"from": ["l.{i:int}.q", "k"], "to": "l.{i}.qk"}),
        document({"from": "l.{i:int}.{e:int}", "to": "l"}),
        document({"from": "l.{name}", "to": "l"}),
    ],
)
def test_documents_that_break_a_rule_are_refused(broken: Any) -> None:  # [MIG-001] [MIG-004] [MIG-006] [MIG-008]
    refusal("bad-migration", Migration.parse, broken)


def test_files_are_json_or_msgpack(tmp_path: Path) -> None:  # [MIG-002] [MIG-018]
    one, two = document(description="first"), document(start="2", end="3")
    (tmp_path / "a.json").write_text(json.dumps([one, two], indent=1))
    (tmp_path / "b.msgpack").write_bytes(msgpack.packb({key: one[key] for key in reversed(one)}))
    found = MigrationSet(tmp_path / "a.json").migrations
    assert [str(edge) for edge in found] == ["s: 1 → 2", "s: 2 → 3"]
    assert MigrationSet([str(tmp_path / "b.msgpack"), two]).migrations == found
    bad = {"x": b"\xc1", "y": b'{"a": 1, "a": 2}', "z": b"[NaN]", "w": b"[" * 100_000}
    for name, raw in bad.items():
        (tmp_path / name).write_bytes(raw)
        refusal("bad-migration", MigrationSet, tmp_path / name)
    refusal("not-found", MigrationSet, tmp_path / "none")


# ---- the graph


def edges(*pairs: str) -> MigrationSet:
    return MigrationSet([document(start=pair[0], end=pair[1]) for pair in pairs])


def test_the_chain_is_found() -> None:  # [MIG-012]
    graph = edges("ab", "bc", "cd", "bx", "ye", "da")
    assert [edge.end for edge in graph.chain("s", "a", "d")] == ["b", "c", "d"]
    assert [edge.end for edge in graph.chain("s", "d", "a", down=True)] == ["c", "b", "a"]
    assert graph.chain("s", "a", "a") == ()


def test_missing_and_ambiguous_chains_show_the_graph() -> None:  # [MIG-012]
    graph = edges("ab", "bc", "ac")
    error = refusal("ambiguous-migration", graph.chain, "s", "a", "c")
    assert "a → b → c" in str(error)
    assert "a → c" in str(error)
    error = refusal("no-migration", graph.chain, "s", "c", "a")
    assert "s: a → b (exact); s: b → c (exact); s: a → c (exact)" in str(error)
    assert "other schemas: s" in str(refusal("no-migration", graph.chain, "t", "a", "b"))


def test_only_exact_chains_run_backwards(tmp_path: Path) -> None:  # [MIG-014]
    lossy = document({"from": "w", "to": "w", "with": [{"op": "scale", "by": 4}]})
    final = document({"from": "w", "to": [], "with": [{"op": "drop"}]}, start="2", end="3")
    graph = MigrationSet([lossy, final])
    assert [edge.loss for edge in graph.migrations] == [Loss.LOSSY, Loss.IRREVERSIBLE]
    assert "lossy" in str(refusal("irreversible-migration", graph.chain, "s", "2", "1", down=True))
    refusal("irreversible-migration", graph.chain, "s", "3", "2", down=True, lossy=True)
    refusal("irreversible-migration", graph.migrations[1].inverse)
    path = saved(tmp_path, {"w": W})
    ckptfmt.migrate(path, tmp_path / "2", graph, to="2")
    ckptfmt.migrate(tmp_path / "2", tmp_path / "1", graph, to="1", down=True, lossy=True)
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "2")["w"], 4 * W)
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "1")["w"], W)


def test_a_checkpoint_without_schema_is_told_its_own(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x", {"a": W})
    rule = document({"from": "a", "to": "b"})
    assert "schema" in str(refusal("no-migration", ckptfmt.open_at, tmp_path / "x", "2", rule))
    with ckptfmt.open_at(tmp_path / "x", "2", rule, schema=("s", "1")) as view:
        assert [*view] == ["b"]


# ---- plans


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
        ([{"op": "neg", "on": [1]}], "item 1 of 1"),
        ([{"op": "split", "axis": 0, "sizes": [1, 1]}], "2 results for 1 targets"),
        ([{"op": "fill", "value": 0, "shape": ["nothing"]}], "no value"),
    ],
)
def test_operators_that_do_not_fit_are_faults(tmp_path: Path, steps: Any, text: str) -> None:
    (fault,) = (f for f in faults(tmp_path, {"w": W}, {"from": "w", "with": steps, "to": "v"}, rest="keep"))
    assert text in fault


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
    with ckptfmt.open_at(path, "3", [there, back]) as view:
        assert type(view.tree["a"]) is list  # at version 2 it had no tuple to be like
    drop = document({"from": "{rest:**}", "with": [{"op": "drop"}], "to": []})
    ckptfmt.migrate(path, tmp_path / "empty", drop, to="2")
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
        to="2",
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
    with ckptfmt.open_at(path, "2", made, externs=externs) as view:
        assert view["w"].shape == (2, 2)
        assert view["w"][1].tolist() == [6, 8]
        assert view.plan.loss == Loss.IRREVERSIBLE
    path = saved(tmp_path, {"q": X, "s": W})
    error = refusal("migration-mismatch", ckptfmt.open_at, path, "2", made, externs=externs)
    assert "quantised weights are int8" in str(error)


def test_parameters_come_from_the_call_the_document_or_the_metadata(tmp_path: Path) -> None:  # [MIG-010]
    made = document(
        {"from": "w", "with": [{"op": "split", "axis": 1, "sizes": ["a", "b"]}], "to": ["x", "y"]},
        parameters={"a": {"metadata": "config/a"}, "b": 1},
    )
    path = saved(tmp_path, {"w": W}, metadata={"config": {"a": 2}})
    for given, sizes in (({}, [2, 1]), ({"a": 0, "b": 3}, [0, 3])):
        with ckptfmt.open_at(path, "2", made, parameters=given) as view:
            assert [view["x"].shape[1], view["y"].shape[1]] == sizes
            assert view.plan.parameters == ({"a": sizes[0], "b": sizes[1]},)
    path = saved(tmp_path, {"w": W})
    assert "config/a" in str(refusal("migration-mismatch", ckptfmt.open_at, path, "2", made))


# ---- views


def test_a_slice_reads_the_blocks_that_it_needs(tmp_path: Path) -> None:
    rows, columns = 3 * 4096, 1024
    qkv = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    sizes = [rows // 3] * 3
    split = document({"from": "qkv", "with": [{"op": "split", "axis": 0, "sizes": sizes}], "to": ["q", "k", "v"]})
    path = saved(tmp_path, {"qkv": qkv})
    with ckptfmt.open_at(path, "2", split) as view:
        assert view.checkpoint.bytes_read == 0
        part = view["k"][100:1300]
        np.testing.assert_array_equal(part, qkv[rows // 3 + 100 : rows // 3 + 1300])
        assert view.checkpoint.bytes_read <= 1.1 * part.nbytes + 2 * (4 << 20)
    with ckptfmt.open_at(path, "2", split, verify=False) as view:
        part = view["v"][7:1000:3]
        np.testing.assert_array_equal(part, qkv[2 * rows // 3 + 7 : 2 * rows // 3 + 1000 : 3])
        assert view.checkpoint.bytes_read <= 1.1 * part.nbytes


def test_a_rearranged_slice_reads_little_around_it(tmp_path: Path) -> None:
    heads, depth, columns = 8, 512, 2048  # 32 MiB
    w = np.arange(heads * 2 * depth // 2 * columns, dtype=np.int32).reshape(heads * depth, columns)
    step = {"op": "rearrange", "pattern": "(h two d) e -> (h d two) e", "axes": {"h": heads, "two": 2}}
    expected = w.reshape(heads, 2, depth // 2, columns).transpose(0, 2, 1, 3).reshape(w.shape)
    path = saved(tmp_path, {"w": w})
    with ckptfmt.open_at(path, "2", document({"from": "w", "with": [step], "to": "w"})) as view:
        part = view["w"][depth : 2 * depth]  # one head
        np.testing.assert_array_equal(part, expected[depth : 2 * depth])
        assert view.checkpoint.bytes_read <= part.nbytes + 2 * (4 << 20)
        np.testing.assert_array_equal(view["w"][100:2900:7, ::-5], expected[100:2900:7, ::-5])
    turned = {"op": "rearrange", "pattern": "(h d) e -> (d h) e", "axes": {"h": heads}}
    with ckptfmt.open_at(path, "2", document({"from": "w", "with": [turned], "to": "w"}), verify=False) as view:
        whole = w.reshape(heads, depth, columns).transpose(1, 0, 2).reshape(w.shape)
        np.testing.assert_array_equal(view["w"][40:72], whole[40:72])
        assert view.checkpoint.bytes_read < 0.6 * w.nbytes  # the heads lie apart, and little between is read


def test_a_view_looks_like_a_checkpoint(tmp_path: Path) -> None:
    path = saved(tmp_path, {"m": [W, X], "t": np.array(["2024-02-29"], "M8[D]"), "n": 7}, metadata={"loss": 1.5})
    made = document({"from": "m/{i:int}", "to": "n{i}"}, rest="keep")
    with ckptfmt.open_at(path, "2", made) as view:
        assert view.schema == ckptfmt.Schema("s", "2")
        assert view.metadata == {"loss": 1.5}
        assert [*view] == ["n0", "n1", "t"]
        assert view["n"] == 7
        assert view["n0",].shape == (2, 3)
        assert view["t"][0] == np.datetime64("2024-02-29")
        assert np.asarray(view["n1"], np.float32).tolist() == [0, 1, 2, 3]
        assert view["n1"][2] == 2
        assert repr(view["n0"]) == "<MigratedTensor 'n0' float32 (2, 3)>"
        assert view["n0"].nbytes == 24
        assert view.load(select="n0")["n0"].tolist() == W.tolist()
        refusal("no-match", view.load, select="x")
        refusal("no-such-path", view.__getitem__, "m/0")
        refusal("bad-index", view["n0"].__getitem__, (0, 0, 0))
    error = refusal("io", view["n0"].read)
    assert error.tensor == "m/0"


def test_damage_is_named_by_the_tensor_of_the_source(tmp_path: Path) -> None:
    path = saved(tmp_path, {"old": np.arange(1000), "fine": X})
    raw = bytearray(path.read_bytes())
    raw[raw.index(np.arange(1000).tobytes()) + 77] ^= 1
    path.write_bytes(raw)
    made = document({"from": "old", "to": "new"}, rest="keep")
    with ckptfmt.open_at(path, "2", made) as view:
        assert view["fine"].read().tolist() == X.tolist()
        assert refusal("block-digest", view["new"].read).tensor == "old"
    refusal("block-digest", ckptfmt.migrate, path, tmp_path / "dst", made, to="2")
    assert not (tmp_path / "dst").exists()


# ---- saving


def test_provenance_grows_and_the_rest_stays(tmp_path: Path) -> None:  # [MIG-017] [MAN-003]
    path = saved(tmp_path, {"a": W}, metadata={"k": (1,)}, extra={"later": [1]}, layout="loose")
    chain = [document({"from": "a", "to": "b"}), document({"from": "b", "to": "c"}, start="2", end="3")]
    first = ckptfmt.migrate(path, tmp_path / "2", chain, to="2")
    ckptfmt.migrate(tmp_path / "2", tmp_path / "1", chain, to="1", down=True, layout="file")
    with ckptfmt.open(path) as source, ckptfmt.open(tmp_path / "1") as result:
        one, two = provenance(result)
        assert result.schema == source.schema
        assert result.metadata == {"k": (1,)}
        assert result.manifest.unknown["later"] == [1]
        assert result.layout == "file"
        assert one["source"].hex() == source.manifest_sha256
        assert two["source"].hex() == first.saved.manifest_sha256
        assert [step["inverse"] for record in (one, two) for step in record["chain"]] == [False, True]
        assert {step["document"] for record in (one, two) for step in record["chain"]} == {
            Migration.parse(chain[0]).digest
        }
        assert provenance(source) == []
    with ckptfmt.open(tmp_path / "2") as between:
        assert between.layout == "loose"
    assert ckptfmt.verify(tmp_path / "1").ok


def test_in_place_and_planned_only(tmp_path: Path) -> None:  # [MIG-019]
    path = saved(tmp_path, {"a": W})
    before = path.read_bytes()
    made = document({"from": "a", "to": "b"})
    assert ckptfmt.migrate(path, path, made, to="2", plan_only=True).saved is None
    refusal("exists", ckptfmt.migrate, path, path, made, to="2")
    assert path.read_bytes() == before
    seen: list[tuple[int, int]] = []
    report = ckptfmt.migrate(
        path, path, made, to="2", overwrite=True, progress=lambda done, total: seen.append((done, total))
    )
    assert report.plan.is_rename
    assert seen[-1] == (24, 24)
    assert [*ckptfmt.load(path)] == ["b"]
    assert ckptfmt.migrate(path, tmp_path / "same", made, to="2").plan.chain == ()


def test_renames_of_loose_checkpoints_share_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[MIG-020]"""
    tree = {"a": W, "tied": W, "c": np.arange(40_000), "empty": np.zeros((0, 2)), "n": [1, (2,)]}
    options = {"layout": "loose", "compression": {"c": "gzip"}, "digest": "sha256"}
    path = saved(tmp_path, tree, **options)
    made = document({"from": "c", "to": "b/c"}, rest="keep")
    with monkeypatch.context() as patch:
        patch.setattr(BlockReader, "read", None)  # no tensor is read
        ckptfmt.migrate(path, tmp_path / "linked", made, to="2", digest="sha256")
    ckptfmt.migrate(path, tmp_path / "copied", made, to="2", digest="sha256", link=False)
    assert ckptfmt.verify(tmp_path / "linked").ok
    found = ckptfmt.load(tmp_path / "linked")
    assert_same_tree(found, ckptfmt.load(tmp_path / "copied"))
    assert found["a"] is found["tied"]
    chunk = Path("c") / "0"
    assert (tmp_path / "linked/tensors/b/c" / chunk).samefile(path / "tensors/c" / chunk)
    assert not (tmp_path / "copied/tensors/b/c" / chunk).samefile(path / "tensors/c" / chunk)
    ckptfmt.migrate(tmp_path / "linked", tmp_path / "linked", made, to="1", down=True, overwrite=True, digest="sha256")
    assert_same_tree(ckptfmt.load(path), ckptfmt.load(tmp_path / "linked"))


def test_where_links_cannot_be_made_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    path = saved(tmp_path, {"a": W}, layout="loose")
    monkeypatch.setattr("ckptfmt.storage.disk.Disk.link_open", refuse)
    ckptfmt.migrate(path, tmp_path / "dst", document({"from": "a", "to": "b"}), to="2")
    assert ckptfmt.load(tmp_path / "dst")["b"].tolist() == W.tolist()
    assert {entry.name for entry in tmp_path.iterdir()} == {"src", "dst"}


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Tensors are written piece by piece: joined, turned and rearranged ones too."""
    w = np.arange(4096 * 2048, dtype=np.int32).reshape(4096, 2048)  # 32 MiB
    path = saved(tmp_path, {"q": w, "k": w + 1, "t": w + 2})
    halves = {"op": "rearrange", "pattern": "(h two d) e -> (h d two) e", "axes": {"h": 8, "two": 2}, "on": [0]}
    made = document(
        {"from": ["q", "k"], "with": [halves, {"op": "concat", "axis": 0, "sizes": [4096, 4096]}], "to": "qk"},
        {"from": "t", "with": [{"op": "rearrange", "pattern": "a b -> b a"}], "to": "t"},
    )
    tracemalloc.start()
    try:
        ckptfmt.migrate(path, tmp_path / "dst", made, to="2", durable=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 80 << 20  # the trees have 96 MiB each
    found = ckptfmt.load(tmp_path / "dst")
    np.testing.assert_array_equal(found["t"], (w + 2).T)
    np.testing.assert_array_equal(found["qk"][4096:], w + 1)
