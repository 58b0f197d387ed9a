"""torch.distributed.checkpoint through this format, in one process."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inside import inside

import ckptfmt
from ckptfmt.format import paged_manifest
from ckptfmt.layouts import paging
from ckptfmt.testing import assert_same_tree

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")
backend = pytest.importorskip("ckptfmt_torch.dcp")

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.distributed is disabled"),
    pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental"),
]


class Opaque:
    """A value that no tree has a node for."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


PLAIN = {
    "none": None,
    "flags": (True, [False, None]),
    "numbers": [1, 1 << 70, -0.5, 2j],
    "text": "ünï",
    "raw": b"\0\1",
    "values": (torch.Size([2, 3]), torch.bfloat16, torch.device("cuda:1")),
}
OPAQUE = {
    "object": Opaque(3),
    "array": np.float32(2),
    "ordered": (OrderedDict(a=1),),
    "surrogate": "\ud800",
    "set": {1, 2},
}


def state(scale: float) -> dict[str, Any]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5 * scale)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    generator = torch.Generator().manual_seed(7)
    tensors = {
        "half": torch.randn(4, 6, generator=generator).bfloat16().T,
        "kinds": [
            torch.arange(4).to(dtype) for dtype in (torch.bool, torch.uint16, torch.complex64, torch.float8_e5m2)
        ],
        "scalar": torch.tensor(scale),
        "empty": torch.zeros(0, 3),
        "packed": torch.arange(6, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    }
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "tensors": tensors}


def zeros_like(tree: Any) -> Any:
    if isinstance(tree, torch.Tensor):
        return (
            torch.zeros_like(tree.view(torch.uint8)).view(tree.dtype)
            if tree.dtype.itemsize == 1
            else torch.zeros_like(tree)
        )
    if isinstance(tree, dict):
        return {key: zeros_like(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [zeros_like(value) for value in tree]
    return None


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if expected.numel():
            one, other = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (found, expected))
            assert torch.equal(one, other)
    elif isinstance(expected, dict):
        assert [str(key) for key in found] == [str(key) for key in expected]
        for one, other in zip(found.values(), expected.values(), strict=True):
            assert_same(one, other)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    else:
        assert (type(found), found) == (type(expected), expected)


def save(path: Path, tree: Any, **options: Any) -> Any:
    return dcp.save(tree, storage_writer=backend.StorageWriter(path, **options))


def load(path: Path, tree: Any, **options: Any) -> Any:
    dcp.load(tree, storage_reader=backend.StorageReader(path, **options))
    return tree


def test_state_comes_back(tmp_path: Path) -> None:
    saved = state(1.0)
    save(tmp_path / "c", saved)
    assert_same(load(tmp_path / "c", zeros_like(saved)), saved)


def test_what_dcp_saves_is_an_ordinary_checkpoint(tmp_path: Path) -> None:
    saved = state(1.0)
    save(tmp_path / "c", saved, metadata={"step": 7}, schema=("mlp", "1"))
    assert ckptfmt.verify(tmp_path / "c").ok
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert (checkpoint.layout, checkpoint.metadata, checkpoint.schema) == (
            "packed",
            {"step": 7},
            ckptfmt.Schema("mlp", "1"),
        )
        assert checkpoint["model", "0.weight"].shape == (5, 3)
    found = ckptfmt_torch.load(tmp_path / "c")
    assert_same(found, saved)  # DCP makes int keys text
    arrays = ckptfmt.load(tmp_path / "c")
    assert arrays["optimizer"]["param_groups"] == saved["optimizer"]["param_groups"]
    assert arrays["tensors"]["half"].dtype.name == "bfloat16"
    module = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 3))
    save(tmp_path / "m", module.state_dict())
    blank = torch.nn.Sequential(torch.nn.Linear(3, 5, device="meta"), torch.nn.Linear(5, 3, device="meta"))
    ckptfmt_torch.load_into(tmp_path / "m", blank)
    assert_same(dict(blank.state_dict()), dict(module.state_dict()))


def test_plain_values_are_stored_as_they_are(tmp_path: Path) -> None:
    save(tmp_path / "c", {"plain": PLAIN})
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert "torch.saved" not in repr(inside(checkpoint).manifest.tree)
    assert_same(ckptfmt_torch.load(tmp_path / "c")["plain"], PLAIN)
    assert_same(load(tmp_path / "c", {"plain": dict.fromkeys(PLAIN)})["plain"], PLAIN)


def test_other_values_are_bytes_that_say_what_they_are(tmp_path: Path) -> None:
    save(tmp_path / "c", dict(OPAQUE))
    raw = ckptfmt.load(tmp_path / "c")
    assert all(type(value) is bytes for value in raw.values())
    marked = ckptfmt_torch.load(tmp_path / "c")
    assert marked == {name: ckptfmt_torch.Saved(data) for name, data in raw.items()}
    assert torch.load(io.BytesIO(raw["object"]), weights_only=False) == OPAQUE["object"]
    ckptfmt_torch.save(tmp_path / "again", marked)  # what they are stays known
    assert load(tmp_path / "again", dict.fromkeys(OPAQUE)) == OPAQUE


def test_nothing_is_unpickled_but_by_dcp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "c", {"object": Opaque(1), "w": torch.ones(2)})

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(torch, "load", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    assert load(tmp_path / "c", {"w": torch.zeros(2)})["w"].tolist() == [1, 1]
    ckptfmt.load(tmp_path / "c")
    ckptfmt_torch.load(tmp_path / "c")


def test_planners_that_make_their_own_bytes_are_heard(tmp_path: Path) -> None:
    class Planner(dcp.DefaultSavePlanner):  # type: ignore[misc,name-defined]
        def transform_object(self, item: Any, value: Any) -> Any:
            return io.BytesIO(b"mine") if item.type == dcp.planner.WriteItemType.BYTE_IO else value.half()

        def create_local_plan(self) -> Any:
            plan = super().create_local_plan()
            for item in plan.items:
                if item.tensor_data is not None:
                    item.tensor_data.properties.dtype = torch.float16
            return plan

    dcp.save({"w": torch.ones(2), "lr": 0.1}, storage_writer=backend.StorageWriter(tmp_path / "c"), planner=Planner())
    assert_same_tree(ckptfmt.load(tmp_path / "c"), {"w": np.ones(2, np.float16), "lr": b"mine"})


def test_planners_that_break_their_word_are_refused(tmp_path: Path) -> None:
    class Planner(dcp.DefaultSavePlanner):  # type: ignore[misc,name-defined]
        def transform_object(self, item: Any, value: Any) -> Any:
            return value[:1]

    with pytest.raises(dcp.CheckpointException, match="other data for 'w'"):
        dcp.save({"w": torch.ones(2)}, storage_writer=backend.StorageWriter(tmp_path / "c"), planner=Planner())
    assert not any(tmp_path.iterdir())


def test_flat_names_stay_flat(tmp_path: Path) -> None:
    planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    tree = {"a.b": torch.ones(2), "a": torch.zeros(1)}
    dcp.save(tree, storage_writer=backend.StorageWriter(tmp_path / "c"), planner=planner)
    assert list(ckptfmt.load(tmp_path / "c")) == ["a.b", "a"]
    assert_same(load(tmp_path / "c", zeros_like(tree)), tree)


def test_dcp_loads_what_others_saved(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 3)
    shared = torch.arange(4.0)
    tree = {"model": model, "state": {0: {"m": shared}}, "list": [shared, (1, 2)], "groups": [{"lr": 0.1}]}
    ckptfmt_torch.save(tmp_path / "c", tree, layout="file")
    target = {
        "model": torch.nn.Linear(2, 3).state_dict(),
        "state": {0: {"m": torch.zeros(4)}},
        "list": [torch.zeros(4), None],
        "groups": [{"lr": None}],
    }
    load(tmp_path / "c", target)
    assert_same(dict(target["model"]), dict(model.state_dict()))
    assert torch.equal(target["state"][0]["m"], shared)
    assert torch.equal(target["list"][0], shared)
    assert (target["list"][1], target["groups"]) == ((1, 2), [{"lr": 0.1}])


def test_a_part_is_loaded_by_its_names(tmp_path: Path) -> None:
    save(tmp_path / "c", state(1.0))
    reader = backend.StorageReader(tmp_path / "c")
    target = {"tensors": {"scalar": torch.zeros(())}}
    dcp.load(target, storage_reader=reader)
    assert target["tensors"]["scalar"] == 1
    assert reader.bytes_read == 4


def test_targets_of_other_strides_and_dtypes(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": torch.arange(6.0).reshape(2, 3)})
    transposed = {"w": torch.zeros(3, 2).T}
    assert load(tmp_path / "c", transposed)["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(dcp.CheckpointException, match="cast=True"):
        load(tmp_path / "c", {"w": torch.zeros(2, 3, dtype=torch.float64)})
    wide = load(tmp_path / "c", {"w": torch.zeros(2, 3, dtype=torch.float64)}, cast=True)
    assert wide["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    import ml_dtypes

    ckptfmt.save(tmp_path / "c", {"w": np.ones(2, np.float32), "odd": np.ones(2, ml_dtypes.int4)})
    for name in ("v", "odd"):
        with pytest.raises(dcp.CheckpointException, match=f"Missing key in checkpoint state_dict: {name}"):
            load(tmp_path / "c", {name: torch.zeros(2)})


def test_damage_is_found(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": torch.arange(1000.0)})
    pack = tmp_path / "c" / "packs" / "00000.zip"
    raw = bytearray(pack.read_bytes())
    raw[raw.index(np.float32(500).tobytes())] ^= 1
    pack.write_bytes(raw)
    with pytest.raises(dcp.CheckpointException, match="block-digest"):
        load(tmp_path / "c", {"w": torch.zeros(1000)})


def test_a_checkpoint_is_replaced_only_when_asked(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": torch.ones(2)})
    with pytest.raises(dcp.CheckpointException, match="exists"):
        save(tmp_path / "c", {"w": torch.zeros(2)})
    assert ckptfmt.load(tmp_path / "c")["w"].tolist() == [1, 1]
    save(tmp_path / "c", {"w": torch.zeros(2)}, overwrite=True)
    assert ckptfmt.load(tmp_path / "c")["w"].tolist() == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_a_failed_save_leaves_nothing(tmp_path: Path) -> None:
    class Planner(dcp.DefaultSavePlanner):  # type: ignore[misc,name-defined]
        def resolve_data(self, item: Any) -> Any:
            if item.index.fqn == "b":
                raise OSError("gone")
            return super().resolve_data(item)

    tree = {"a": torch.ones(2), "b": torch.ones(2)}
    with pytest.raises(dcp.CheckpointException, match="gone"):
        dcp.save(tree, storage_writer=backend.StorageWriter(tmp_path / "c"), planner=Planner())
    assert not any(tmp_path.iterdir())


def test_one_writer_serves_many_saves(tmp_path: Path) -> None:
    writer, reader = backend.StorageWriter(tmp_path / "unused"), backend.StorageReader(tmp_path / "unused")
    for step in range(3):
        dcp.save({"w": torch.full((2,), float(step))}, checkpoint_id=tmp_path / str(step), storage_writer=writer)
    target = {"w": torch.zeros(2)}
    for step in range(3):
        dcp.load(target, checkpoint_id=tmp_path / str(step), storage_reader=reader)
        assert target["w"].tolist() == [step, step]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_plan_caching_is_refused_where_it_would_hide_plans(tmp_path: Path) -> None:
    planner = dcp.DefaultSavePlanner(enable_plan_caching=True)
    dcp.save({"w": torch.ones(2)}, storage_writer=backend.StorageWriter(tmp_path / "a"), planner=planner)
    with pytest.raises(dcp.CheckpointException, match="enable_plan_caching"):
        dcp.save({"w": torch.ones(2)}, storage_writer=backend.StorageWriter(tmp_path / "b"), planner=planner)
    with pytest.raises(ckptfmt.InputError, match="use_collectives"):
        backend.StorageWriter(tmp_path / "c").set_up_storage_writer(True, rank=0, use_collectives=False)


def test_saving_in_the_background(tmp_path: Path) -> None:
    saved = state(1.0)
    future = dcp.async_save(saved, storage_writer=backend.StorageWriter(tmp_path / "c"))
    future.result()
    assert_same(load(tmp_path / "c", zeros_like(saved)), saved)


def test_compressed(tmp_path: Path) -> None:
    save(tmp_path / "c", {"w": torch.zeros(1000), "v": torch.ones(3)}, compression={"w": "zstd"})
    with ckptfmt.open(tmp_path / "c") as checkpoint:
        assert (checkpoint["w"].codec, checkpoint["v"].codec) == ("zstd", "raw")
    assert load(tmp_path / "c", {"w": torch.ones(1000)})["w"].sum() == 0


def test_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = state(1.0)
    monkeypatch.setattr(paged_manifest, "LEAST_TENSORS", 4)
    for name, paged, version in (("a", None, (1, 1)), ("b", True, (1, 1)), ("c", False, (1, 0))):
        save(tmp_path / name, saved, paged=paged)
        with ckptfmt.open(tmp_path / name) as checkpoint:
            assert checkpoint.format == version
        assert ckptfmt.verify(tmp_path / name).ok
        assert_same(load(tmp_path / name, zeros_like(saved)), saved)
    with pytest.raises(ckptfmt.InputError, match="paged="):
        backend.StorageWriter(tmp_path / "d", paged="yes")
    monkeypatch.setattr(paging, "LARGEST", 100)
    with pytest.raises(dcp.CheckpointException, match="too large to be read"):
        save(tmp_path / "d", saved, paged=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_an_empty_state(tmp_path: Path) -> None:
    save(tmp_path / "c", {})
    assert ckptfmt.load(tmp_path / "c") == {}
    assert ckptfmt.verify(tmp_path / "c").ok


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(dcp.CheckpointException, match="not-found"):
        load(tmp_path / "none", {"w": torch.zeros(2)})
    ckptfmt.save(tmp_path / "list", [np.ones(2)])
    with pytest.raises(dcp.CheckpointException, match="DCP loads dicts"):
        load(tmp_path / "list", {"w": torch.zeros(2)})
