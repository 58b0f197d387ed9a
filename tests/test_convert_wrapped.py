"""Files of `torch.save` with tensors that are made of others, as torchao quantises: each becomes a dict of what it is
made of, and its class is not looked up. (Checked with Int8Tensor, Float8Tensor and others of torchao 0.18.0, too.)"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile import torch_zip

import ckptfmt
from ckptfmt.conversion import open_source

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")


class Scaled(torch.Tensor):
    """Integers with a scale for each row, which stand for floats."""

    def __new__(cls, whole: Any, scale: Any, kind: Any) -> Any:
        return torch.Tensor._make_wrapper_subclass(cls, whole.shape, dtype=torch.bfloat16)

    def __init__(self, whole: Any, scale: Any, kind: Any) -> None:
        self.whole, self.scale, self.kind, self.group = whole, scale, kind, [1, 3]

    def __tensor_flatten__(self) -> Any:
        return ["whole", "scale"], self.kind

    @classmethod
    def __tensor_unflatten__(cls, parts: Any, kind: Any, *_: Any) -> Any:
        return cls(parts["whole"], parts["scale"], kind)

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.ops.aten.detach.default:
            return args[0]
        raise NotImplementedError(function)

    def __repr__(self, **_: Any) -> str:
        return "Scaled"


class Kind:
    """What says how it computes."""


def scaled(kind: Any = None) -> Any:
    return Scaled(torch.arange(6, dtype=torch.int8).reshape(2, 3), torch.tensor([[0.5], [2.0]]), kind)


def read(tmp_path: Path, value: Any) -> tuple[Any, list[str]]:
    torch.save(value, tmp_path / "a.pt")
    report = ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.ckpt", allow_loss="value", durable=False)
    return ckptfmt_torch.load(tmp_path / "a.ckpt"), [str(loss) for loss in report.losses]


@pytest.mark.filterwarnings("ignore:'torch.tensor_subclass")  # its class is not registered
def test_a_tensor_that_is_made_of_others_becomes_what_it_is_made_of(tmp_path: Path) -> None:
    plain = torch.ones(3)
    found, losses = read(tmp_path, {"w": scaled(), "b": plain})
    assert losses == []
    assert torch.equal(found["b"], plain)
    parts = found["w"]
    assert parts["context"] == {"dtype": torch.bfloat16, "group": [1, 3], "kind": None}
    assert (parts["shape"], parts["stride"]) == ((2, 3), (3, 1))
    assert torch.equal(parts["whole"], scaled().whole)
    assert torch.equal(parts["scale"], scaled().scale)
    assert ckptfmt.open(tmp_path / "a.ckpt").tags["w",] == [("torch.tensor_subclass", f"{__name__}.Scaled")]


@pytest.mark.filterwarnings("ignore:'torch.tensor_subclass")
def test_parts_in_parts_and_what_is_no_data(tmp_path: Path) -> None:
    inner = scaled(Kind())
    outer = Scaled(inner, torch.ones(1), None)
    found, losses = read(tmp_path, [outer, inner])
    assert torch.equal(found[0]["whole"]["whole"], inner.whole)
    assert found[0]["whole"]["whole"] is found[1]["whole"]
    assert "kind" not in found[1]["context"]
    assert f"value of '1/context/kind': {__name__}.Kind is left out: it is neither a tensor nor plain data" in losses


class Shaped(Scaled):
    """One with a tensor whose name is that of something else here."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.context = self.scale


def test_one_whose_names_are_taken_becomes_a_dict_of_its_parts(tmp_path: Path) -> None:
    value = Shaped(torch.zeros(2, 3, dtype=torch.int8), torch.ones(2, 1), None)
    found, losses = read(tmp_path, {"w": value})
    assert losses == [f"value of 'w': a {__name__}.Shaped becomes a dict of its parts"]
    assert torch.equal(found["w"]["context"], torch.ones(2, 1))


def test_one_without_attributes_is_left_out(tmp_path: Path) -> None:
    bare = "ctorch._utils\n_rebuild_wrapper_subclass\n"
    pickle = f"}}Vw\nctorch._tensor\n_rebuild_from_type_v2\n({bare}cx\nY\n(cx\nY\nctorch\nfloat32\n(I2\nttNtRs."
    torch_zip(tmp_path / "a.pt", pickle.encode())
    with open_source(str(tmp_path / "a.pt")) as source:
        assert source.tree == {}
        assert [loss.message for loss in source.losses] == ["a x.Y is left out: it is neither a tensor nor plain data"]
