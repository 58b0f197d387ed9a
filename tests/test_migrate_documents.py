"""What migration documents say: patterns, sizes, rules; and the graph that they make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from migrations import W, document, refusal, saved

import ckptfmt
from ckptfmt import Migration, MigrationSet
from ckptfmt.migration import LossClass
from ckptfmt.migration.patterns import literal_path, parse_patterns, tokens_of
from ckptfmt.migration.sizes import evaluate, is_size

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
    assert error.advice == "Migrations lead from there to here: down=True goes back"
    error = refusal("no-migration", graph.chain, "s", "a", "b", down=True)
    assert error.advice == "Migrations lead there: leave out down=True"
    assert "Add the missing migration" in refusal("no-migration", graph.chain, "s", "a", "x").advice
    assert "other schemas: s" in str(refusal("no-migration", graph.chain, "t", "a", "b"))


def test_only_exact_chains_run_backwards(tmp_path: Path) -> None:  # [MIG-014]
    lossy = document({"from": "w", "to": "w", "with": [{"op": "scale", "by": 4}]})
    final = document({"from": "w", "to": [], "with": [{"op": "drop"}]}, start="2", end="3")
    graph = MigrationSet([lossy, final])
    assert [edge.loss for edge in graph.migrations] == [LossClass.LOSSY, LossClass.IRREVERSIBLE]
    assert "lossy" in str(refusal("irreversible-migration", graph.chain, "s", "2", "1", down=True))
    refusal("irreversible-migration", graph.chain, "s", "3", "2", down=True, lossy=True)
    refusal("irreversible-migration", graph.migrations[1].inverse)
    path = saved(tmp_path, {"w": W})
    ckptfmt.migrate(path, tmp_path / "2", graph, schema="2")
    ckptfmt.migrate(tmp_path / "2", tmp_path / "1", graph, schema="1", down=True, lossy=True)
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "2")["w"], 4 * W)
    np.testing.assert_array_equal(ckptfmt.load(tmp_path / "1")["w"], W)


def test_a_checkpoint_without_schema_is_told_its_own(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x", {"a": W})
    rule = document({"from": "a", "to": "b"})
    assert "schema" in str(refusal("no-migration", ckptfmt.open, tmp_path / "x", schema="2", migrations=rule))
    with ckptfmt.open(tmp_path / "x", schema="2", migrations=rule, source_schema=("s", "1")) as view:
        assert [*view] == ["b"]


def test_a_key_that_an_operator_lacks_is_told_with_those_that_it_has() -> None:
    split = {"op": "split", "axis": 0, "parts": 3}
    error = refusal("bad-migration", Migration.parse, document({"from": "a", "with": [split], "to": ["b", "c"]}))
    assert "split has no 'parts': its keys are axis, sizes, and `on`" in str(error)
    error = refusal(
        "bad-migration", Migration.parse, document({"from": "a", "with": [{"op": "neg", "by": 2}], "to": "b"})
    )
    assert "neg has no 'by': its keys are none, and `on`" in str(error)
