"""`ckptfmt inspect` folds what repeats and groups dotted names, and never says what is not so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.cli.folding import FoldedLine, Group, entries_of, folded, grouped
from ckptfmt.format.names import label


def shown(folder: Path, tree: Any, *options: str, **more: Any) -> list[str]:
    path = folder / "x.ckpt"
    ckptfmt.save(path, tree, overwrite=True, durable=False, **more)
    result = CliRunner().invoke(cli, ["inspect", str(path), *options])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    rows = lines[next(i for i, line in enumerate(lines) if line.split()[0] == "tree") + 1 : -1]
    return [re.sub("(?<=[^ ├└─│]) +", " ", row) for row in rows]  # columns are aligned, which is not the point here


def layer(width: int = 4, **more: Any) -> dict[str, Any]:
    return {"w": np.zeros((width, 4), np.float32), "b": np.zeros(4, np.float32), **more}


def test_layers_that_are_alike_are_one_line(tmp_path: Path) -> None:
    assert shown(tmp_path, {"layers": [layer() for _ in range(32)]}) == [
        "└── layers list",
        "    └── 0..31 32 alike, each 2 tensors, 20 elements, 80 B",
        "        ├── w float32 [4, 4] 64 B raw",
        "        └── b float32 [4] 16 B raw",
    ]
    assert len(shown(tmp_path, {"layers": [layer() for _ in range(32)]}, "--all")) == 1 + 32 * 3


def test_what_differs_stands_apart(tmp_path: Path) -> None:
    layers = (
        [layer() for _ in range(3)] + [layer(5)] + [layer() for _ in range(4)] + [layer(note=1)] + [layer(), layer()]
    )
    labels = [line.split("── ")[1].split()[0] for line in shown(tmp_path, layers) if line[0] in "├└"]
    assert labels == ["0..2", "3", "4..7", "8", "9", "10"], "two alike are not worth a fold"


@pytest.mark.parametrize(
    "other",
    [
        {"w": np.zeros((4, 4), np.float16), "b": np.zeros(4, np.float32)},  # a dtype
        {"b": np.zeros(4, np.float32), "w": np.zeros((4, 4), np.float32)},  # an order
        {"w": np.zeros((4, 4), np.float32), "c": np.zeros(4, np.float32)},  # a name
        layer(lr=0.1),
        [np.zeros((4, 4), np.float32), np.zeros(4, np.float32)],
    ],
    ids=["dtype", "order", "name", "value", "kind"],
)
def test_nothing_that_differs_is_folded(tmp_path: Path, other: Any) -> None:
    lines = shown(tmp_path, [layer(), layer(), other, layer(), layer()])
    assert not any("alike" in line for line in lines)


def test_codecs_and_aliases_count(tmp_path: Path) -> None:
    layers = [layer() for _ in range(4)]
    lines = shown(tmp_path, {"layers": layers}, compression={"layers/1/**": "zstd"})
    assert not any("alike" in line for line in lines)
    tied = np.zeros(3)
    lines = shown(tmp_path, {"a": {"0": tied, "1": tied, "2": tied, "3": tied}})
    assert lines == [
        "└── a",
        "    ├── '0' float64 [3] 24 B raw",
        "    └── '1'..'3' float64 [3] 24 B raw alias of a/'0', 3 alike",
    ]


def test_names_that_end_in_numbers(tmp_path: Path) -> None:
    tree = {f"Dense_{i}": layer() for i in (0, 1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)} | {"Dense": layer()}
    lines = [line for line in shown(tmp_path, tree) if line[0] in "├└"]
    assert lines[0].startswith("├── Dense_0..11 12 alike, each 2 tensors")
    assert lines[1].startswith("└── Dense")


def test_dotted_names_are_grouped_where_there_are_many(tmp_path: Path) -> None:
    few = {f"fc{i}.{name}": np.zeros(i + 1) for i in range(2) for name in ("weight", "bias")}
    assert [line.split()[1] for line in shown(tmp_path, few)] == list(few)
    many = {f"model.layers.{i}.{name}.weight": np.zeros(3) for i in (0, 1, 10, 11, *range(2, 10)) for name in "qk"}
    assert shown(tmp_path, many | {"lm_head.weight": np.zeros(2)}) == [
        "├── model.layers.",
        "│   └── 0..11. 12 alike, each 2 tensors, 6 elements, 48 B",
        "│       ├── q.weight float64 [3] 24 B raw",
        "│       └── k.weight float64 [3] 24 B raw",
        "└── lm_head.weight float64 [2] 16 B raw",
    ]
    assert [line.split()[1] for line in shown(tmp_path, many, "--all")] == list(many)
    assert shown(tmp_path, many, "--depth", "1") == [
        "└── model.layers. names, 24 tensors, 72 elements, 576 B",
    ]


def test_names_with_odd_periods_stay_whole(tmp_path: Path) -> None:
    odd = {name: np.zeros(1) for name in ("a", "a.", ".a", "a..b", "a.b", "a.c", "'a.b'/c", " a.b")}
    many = {f"x.{i}.w": np.zeros(i) for i in range(20)}
    text = "\n".join(shown(tmp_path, odd | many))
    for words in ("── a ", "── a. ", "── .a ", "── a..b ", "── b ", "── c ", "── x."):
        assert words in text


names = st.lists(st.sampled_from(["a", "b", "0", "1", "2", "3", "10", "w"]), min_size=1, max_size=4).map(".".join)


@given(st.lists(names, unique=True, max_size=60), st.booleans())
def test_every_name_is_shown_in_one_place(found: list[str], is_sorted: bool) -> None:
    """Whatever is grouped and folded: labels along the way give back each name once, in a span or by itself."""
    tree = {name: np.zeros(1) for name in (sorted(found) if is_sorted else found)}

    def unfolded(container: Any, path: tuple[Any, ...], before: str) -> list[str]:
        labels = []
        for entry in grouped(container, path):
            if isinstance(entry.item, Group):
                labels += unfolded(entry.item, entry.path, before + entry.label)
            else:
                labels.append(before + entry.label)
        return labels

    assert sorted(unfolded(tree, (), "")) == sorted(map(label, tree))
    entries = [FoldedLine(entry.label, entry.item, entry.path) for entry in entries_of(tree, ())]
    assert sum(entry.alike for entry in folded(entries, {})) == len(tree)
