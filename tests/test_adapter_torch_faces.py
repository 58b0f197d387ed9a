"""What people who know torch.save and torch.load try first: it works, or the answer says what to do."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")


def refusal(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(ckptfmt.InputError) as caught:
        call(*arguments, **options)
    assert caught.value.code == "bad-option"
    return str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ckptfmt_torch.save(tmp_path / "c.ckpt", torch.nn.Linear(2, 2))
    return tmp_path / "c.ckpt"


@pytest.mark.parametrize(
    "tree", [{"w": 1}, torch.nn.Linear(2, 2), torch.ones(2), [1], np.ones(2)], ids=lambda tree: type(tree).__name__
)
@pytest.mark.parametrize("save", [ckptfmt_torch.save, ckptfmt.save])
def test_the_order_of_torch(tmp_path: Path, save: Any, tree: Any) -> None:
    for path in (tmp_path / "c.ckpt", str(tmp_path / "c.ckpt")):
        text = refusal(save, tree, path)
        assert f"The path comes first: save({str(path)!r}, tree)" in text
    assert not list(tmp_path.iterdir())
    ckptfmt.save(tmp_path / "text.ckpt", "a text")  # is a tree


@pytest.mark.parametrize("source", [3, None, {"w": 1}], ids=["int", "None", "dict"])
def test_what_is_no_path(source: Any) -> None:
    module = torch.nn.Linear(2, 2)
    for call, *more in (
        (ckptfmt_torch.load,),
        (ckptfmt_torch.load_into, module),
        (ckptfmt_torch.open,),
        (ckptfmt.load,),
        (ckptfmt.open,),
        (ckptfmt_torch.save, module),
        (ckptfmt.save, {"w": 1}),
    ):
        text = refusal(call, source, *more)
        assert f"not a {type(source).__name__}" in text


def test_bytes_and_open_files() -> None:
    file, module, other = io.BytesIO(), torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    ckptfmt_torch.save(file, module)
    for held in (file.getvalue(), io.BytesIO(file.getvalue())):
        ckptfmt_torch.load_into(held, other)
        assert torch.equal(module.weight, other.weight)
        assert torch.equal(ckptfmt_torch.load(held)["bias"], module.bias)
        with ckptfmt_torch.open(held) as checkpoint:
            assert torch.equal(checkpoint["weight"][:1], module.weight[:1])


def test_devices(path: Path) -> None:
    for option in ("device", "map_location"):
        for place in ("cpu", torch.device("cpu")):
            assert ckptfmt_torch.load(path, **{option: place})["weight"].device.type == "cpu"
            with torch.device("meta"):
                module = torch.nn.Linear(2, 2)
            ckptfmt_torch.load_into(path, module, **{option: place})
            assert module.weight.device.type == "cpu"
        for wrong, why in (
            ("nowhere", "nowhere"),
            ({"cuda:0": "cpu"}, "a dict"),
            (lambda storage, place: storage, "a function"),
        ):
            text = refusal(ckptfmt_torch.load, path, **{option: wrong})
            assert f"{option}=" in text
            assert why in text
            assert "Give a device that is there" in text
    assert "one option" in refusal(ckptfmt_torch.load, path, device="cpu", map_location="cpu")
    assert "meta" in refusal(ckptfmt_torch.load, path, device="meta")
    with ckptfmt_torch.open(path, device="cpu") as checkpoint:
        assert checkpoint["weight"][0].device.type == "cpu"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(path: Path) -> None:
    for place in ("cuda", "cuda:1", 0):
        assert "Give a device that is there" in refusal(ckptfmt_torch.load, path, device=place)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_slices_on_a_device(path: Path) -> None:
    for place in ("cuda", "cuda:0", 0):
        with ckptfmt_torch.open(path, device=place) as checkpoint:
            assert checkpoint["weight"][0].device.type == "cuda"
            out = torch.zeros(2, 2, device="cuda")
            assert torch.equal(checkpoint["weight"].read(out), ckptfmt_torch.load(path)["weight"].cuda())


def test_weights_only(path: Path) -> None:
    assert ckptfmt_torch.load(path, weights_only=True).keys() == {"weight", "bias"}
    assert ckptfmt_torch.load_into(path, torch.nn.Linear(2, 2), weights_only=True).ok
    assert "nothing in a checkpoint is code" in refusal(ckptfmt_torch.load, path, weights_only=False)


def test_load_into_calls_on_match(path: Path) -> None:
    seen: list[Any] = []
    report = ckptfmt_torch.load_into(path, torch.nn.Linear(2, 2), on_match=seen.append)
    assert seen == [report]
