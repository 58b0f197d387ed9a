"""Exported programs (.pt2) that torch itself wrote, beside what torch loads of them."""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import imported
from hostile import refused
from mangling import only_errors

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.checked import with_arrays

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.tensor([1.5, -0.0, float("nan")], dtype=torch.bfloat16))
        self.other = self.one
        self.part = torch.nn.Parameter(self.one.detach()[1:], requires_grad=False)

    def forward(self, x):  # type: ignore[no-untyped-def]
        return x * self.one * self.other + self.part.sum()


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.tied = torch.nn.Linear(2, 3), Tied()
        self.register_buffer("steps", torch.arange(3))
        self.register_buffer("unsaved", torch.ones(2), persistent=False)
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).T)

    def forward(self, x):  # type: ignore[no-untyped-def]
        found = self.tied(self.first(x)) * torch.tensor([1.0, 2.0, 3.0]) + self.steps
        return found + self.unsaved.sum() + self.turned.sum()


@functools.cache
def exported() -> Any:
    return torch.export.export(Model(), (torch.ones(1, 2),))


def bits(tensor: Any) -> bytes:
    return bytes(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())


def before(path: Path, suffix: str = "pt") -> None:
    """The form of before torch 2.8, of the parts that torch still makes and reads."""
    from torch._export.serde.schema import SCHEMA_VERSION
    from torch._export.serde.serialize import serialize

    artifact = serialize(exported())
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", ".".join(map(str, SCHEMA_VERSION)))
        archive.writestr("serialized_exported_program.json", artifact.exported_program)
        archive.writestr(f"serialized_state_dict.{suffix}", artifact.state_dict)
        archive.writestr(f"serialized_constants.{suffix}", artifact.constants)
        archive.writestr("serialized_example_inputs.pt", artifact.example_inputs)
        archive.writestr("extra_files/note.txt", "é")


def today(path: Path) -> None:
    torch.export.save(exported(), path, extra_files={"note.txt": "é"})


FORMS: dict[str, Callable[[Path], None]] = {
    "today": today,
    "before": before,
    "2.1": lambda path: before(path, "json"),
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_and_constants(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path / "a.pt2")
    loaded = torch.export.load(tmp_path / "a.pt2")
    expected = {**loaded.state_dict, **loaded.constants}
    assert {"first.weight", "steps", "unsaved", "tied.part"} <= expected.keys()
    with open_source(str(tmp_path / "a.pt2")) as source:
        assert (source.format, source.losses) == ("torch-export", ())
        assert source.metadata["torch.export.extra"] == {"note.txt": "é"}
        assert {name: array.tobytes() for name, array in with_arrays(source.tree).items()} == {
            name: bits(tensor) for name, tensor in expected.items()
        }
        assert source.tree["turned"].shape == (3, 2)
    assert ckptfmt.convert(tmp_path / "a.pt2", tmp_path / "a.ckpt", allow_loss="alias").verified


def test_parameters_stay_parameters_and_tied(tmp_path: Path) -> None:
    today(tmp_path / "a.pt2")
    with open_source(str(tmp_path / "a.pt2")) as source:
        assert source.tree["tied.one"] is source.tree["tied.other"]
        assert source.ours is not None
        assert source.ours.tags["first.weight",] == [("torch.Parameter", True)]
        assert source.ours.tags["tied.part",] == [("torch.Parameter", False)]
        assert ("steps",) not in source.ours.tags
    ckptfmt.convert(tmp_path / "a.pt2", tmp_path / "a.pt", allow_loss=("alias", "metadata"))
    model = Model()
    model.load_state_dict(torch.load(tmp_path / "a.pt"), strict=False)


def test_several_models(tmp_path: Path) -> None:
    from torch.export.pt2_archive._package import package_pt2

    programs = {"one": torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),)), "other": exported()}
    package_pt2(tmp_path / "a.pt2", exported_programs=programs)
    tree, _ = imported(tmp_path / "a.pt2", allow_loss="alias")
    assert set(tree) == {"one", "other"}
    assert tree["one"]["weight"].shape == (3, 2)


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the list of the weights of an archive."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (name,) = [name for name in members if name.endswith("model_weights_config.json")]
    document = json.loads(members[name])
    change(document["config"])
    members[name] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def of(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["first.weight"]["tensor_meta"].update({key: value})


HOSTILE = {
    "a shape beyond its storage": (of("sizes", [{"as_int": 3}, {"as_int": 1 << 40}]), "bad-source"),
    "a negative shape": (of("sizes", [{"as_int": -3}, {"as_int": 2}]), "bad-source"),
    "an offset beyond": (of("storage_offset", {"as_int": 2}), "bad-source"),
    "a stride that is true": (of("strides", [{"as_int": True}, {"as_int": 1}]), "bad-source"),
    "too few strides": (of("strides", []), "bad-source"),
    "a symbol": (of("sizes", [{"as_expr": {"expr_str": "s0"}}, {"as_int": 2}]), "unsupported-source"),
    "a dtype that is none": (of("dtype", 99), "unsupported-source"),
    "another layout": (of("layout", 1), "unsupported-source"),
    "a member that is none": (lambda config: config["first.weight"].update(path_name="weight_99"), "bad-source"),
    "a name of constants": (lambda config: config.update(unsaved=config["first.weight"]), "bad-source"),
    "no entry": (lambda config: config.update(x=None), "bad-source"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_lists_that_say_what_is_not_so(tmp_path: Path, what: str) -> None:
    change, code = HOSTILE[what]
    today(tmp_path / "a.pt2")
    rewritten(tmp_path / "a.pt2", change)
    refused(tmp_path / "a.pt2", code)


def test_one_row_that_stands_for_very_many(tmp_path: Path) -> None:
    """Strides of zero are what torch expands a tensor with."""
    today(tmp_path / "a.pt2")
    rewritten(tmp_path / "a.pt2", of("strides", [{"as_int": 0}, {"as_int": 0}]))
    rewritten(tmp_path / "a.pt2", of("sizes", [{"as_int": 1 << 20}, {"as_int": 1 << 20}]))
    refused(tmp_path / "a.pt2", "limit-exceeded")


def test_objects_are_left_out(tmp_path: Path) -> None:
    today(tmp_path / "a.pt2")
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}
    rewritten(tmp_path / "a.pt2", lambda config: config.update(tokenizer=entry))
    refused(tmp_path / "a.pt2", "lossy", "an object of a class is left out")
    tree, _ = imported(tmp_path / "a.pt2", allow_loss=("alias", "value"))
    assert np.array_equal(tree["steps"], [0, 1, 2])


@pytest.mark.parametrize("form", ["today", "before"])
def test_damage(tmp_path: Path, form: str) -> None:
    FORMS[form](tmp_path / "a.pt2")
    only_errors(tmp_path / "a.pt2", "torch-export")
