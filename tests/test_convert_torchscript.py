"""TorchScript: the state of programs that torch itself wrote, beside what torch loads of them."""

from __future__ import annotations

import enum
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import imported
from hostile import MARKER, refused, storage_pickle
from mangling import only_errors

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.checked import with_arrays
from ckptfmt.conversion.source import mapping_of

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")  # torch calls TorchScript deprecated


class Scaled(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.5, -0.0, float("nan")], dtype=torch.bfloat16))

    def forward(self, x):  # type: ignore[no-untyped-def]
        return x * self.weight


class Tied(Scaled):
    def __init__(self) -> None:
        super().__init__()
        self.tied = self.weight


class Model(torch.nn.Module):
    def __init__(self, scaled: type[Scaled] = Scaled) -> None:
        super().__init__()
        self.first = torch.nn.Linear(2, 3)
        self.rest = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), scaled())
        self.register_buffer("steps", torch.arange(3))
        self.register_buffer("unsaved", torch.ones(2), persistent=False)
        self.plain = torch.ones(4, 2).T
        self.names, self.sizes, self.device = ["a", "b"], {"x": 1}, torch.device("cpu")
        self.both, self.nothing, self.rate = (1, 2.5, "x"), None, 0.5

    def forward(self, x):  # type: ignore[no-untyped-def]
        return self.rest(self.first(x)) * torch.tensor([1.0, 2.0, 3.0]) + self.plain.sum() + self.steps


PLAIN = {"names": ["a", "b"], "sizes": {"x": 1}, "both": (1, 2.5, "x"), "nothing": None, "rate": 0.5, "device": "cpu"}


def flat(tree: Any, above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in tree.items():
        found |= flat(item, f"{above}{key}.") if isinstance(item, dict) else {f"{above}{key}": item}
    return found


def test_a_scripted_module_is_its_attributes(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Model(Tied)), tmp_path / "a.pt", _extra_files={"labels.txt": "é", "raw": b"\xff"})
    extra = {"labels.txt": "é", "raw": b"\xff"}
    loaded = torch.jit.load(tmp_path / "a.pt")
    tensors = {**dict(loaded.named_parameters(remove_duplicate=False)), **dict(loaded.named_buffers())}
    with open_source(str(tmp_path / "a.pt")) as source:
        assert (source.format, source.losses, source.metadata) == ("torchscript", (), {"torchscript.extra": extra})
        tree = dict(with_arrays(source.tree))
        assert tree["rest"]["2"]["weight"] is tree["rest"]["2"]["tied"]
        assert "1" not in tree["rest"]  # a ReLU has nothing
        assert {name: tree.pop(name) for name in PLAIN} == PLAIN
        assert np.array_equal(tree.pop("plain"), loaded.plain)
        found = flat(tree)
        assert set(found) == set(tensors)
        for name, tensor in tensors.items():
            assert found[name].view("u1").tobytes() == tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()


def test_a_traced_module_has_its_constants(tmp_path: Path) -> None:
    model = Model().eval()
    torch.jit.save(torch.jit.trace(model, torch.ones(1, 2)), tmp_path / "a.pt")
    tree, _ = imported(tmp_path / "a.pt")
    assert np.array_equal(tree["CONSTANTS"]["c0"], [1, 2, 3])
    assert np.array_equal(tree["first"]["weight"], model.first.weight.detach())
    torch.jit.save(torch.jit.freeze(torch.jit.script(model)), tmp_path / "b.pt")
    tree, _ = imported(tmp_path / "b.pt")
    weights = [item.tobytes() for item in tree["CONSTANTS"].values()]
    assert model.rest[0].weight.detach().numpy().tobytes() in weights


def test_the_names_of_a_state_dict_come_out(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.ReLU())
    torch.jit.save(torch.jit.script(model), tmp_path / "a.pt")
    assert ckptfmt.convert(tmp_path / "a.pt", tmp_path / "a.safetensors", allow_loss="nesting").losses == ()
    from safetensors.torch import load_file

    model.load_state_dict(load_file(tmp_path / "a.safetensors"))


class Mode(enum.Enum):
    SLOW = 1
    FAST = 2


class Switched(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mode, self.number = Mode.FAST, 1 + 2j

    def forward(self, x):  # type: ignore[no-untyped-def]
        return x * 2 if self.mode == Mode.SLOW else x


def test_enums_become_their_values(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(Switched()), tmp_path / "a.pt")
    tree, _ = imported(tmp_path / "a.pt", allow_loss="value")
    assert tree == {"mode": 2, "number": 1 + 2j}
    refused(tmp_path / "a.pt", "lossy", "Mode becomes its value")


def test_quantised_modules(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.Linear(2, 3)), {torch.nn.Linear})
    torch.jit.save(torch.jit.script(model), tmp_path / "a.pt")
    tree, _ = imported(tmp_path / "a.pt", allow_loss="value")
    weight, bias = tree["0"]["_packed_params"]["_packed_params"]
    kept = model[0].weight()
    assert np.array_equal(weight["int_repr"], kept.int_repr())
    assert (weight["scale"], weight["zero_point"]) == (kept.q_scale(), kept.q_zero_point())
    assert np.array_equal(bias, model[0].bias().detach())


def test_a_program_for_mobile_devices(tmp_path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 3))._save_for_lite_interpreter(str(tmp_path / "a.ptl"))
    tree, _ = imported(tmp_path / "a.ptl")
    assert tree["weight"].shape == (3, 2)


def program(path: Path, pickled: bytes, constants: bytes = b"\x80\x02).") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + pickled)
        archive.writestr("a/constants.pkl", constants)
        archive.writestr("a/data/0", bytes(16))
    return path


MODULE = b"c__torch__\nM\nq\0)\x81"


def test_programs_that_were_made_to_harm(tmp_path: Path) -> None:
    for module in (b"cos\nsystem\n", b"cbuiltins\neval\n"):
        path = program(tmp_path / "a.pt", module + b"(X\1\0\0\0" + MARKER[:1].encode() + b"tR.")
        refused(path, "unsafe-source", "which is not required")
    refused(program(path, MODULE + b"q\1}(X\1\0\0\0ah\1ub."), "too-deep")
    circle = MODULE + b"q\1}q\2(X\1\0\0\0ah\2ub."
    refused(program(path, circle), "too-deep")
    refused(program(path, MODULE + b"}X\x09\0\0\0CONSTANTSK\1sb.", b"\x80\x02(K\1t."), "name-collision", "CONSTANTS")
    refused(program(path, b"c__torch__\nMode\n(K\1tR."), "lossy", "Mode becomes its value")
    refused(program(path, b"c__torch__\nM\n."), "lossy", "becomes a string")
    refused(program(path, MODULE + b"}b"), "bad-source")
    shared = MODULE + b"}(" + b"X\1\0\0\0aK\1" * 3 + b"ub"
    program(path, b"(" + shared + b"t.")
    assert imported(path)[0] == ({"a": 1},)
    program(path, MODULE + b"}X\1\0\0\0w" + storage_pickle("I4\n", "I1\n").removesuffix(b".") + b"sb.")
    assert imported(path)[0]["w"].shape == (4,)
    refused(
        program(path, MODULE + b"}X\1\0\0\0w" + storage_pickle("I9\n", "I1\n", count=9)[:-1] + b"sb."), "bad-source"
    )


def test_what_is_named_otherwise_says_so(tmp_path: Path) -> None:
    program(tmp_path / "a.pt", MODULE + b"}b.")
    refused(tmp_path / "a.pt", "bad-source", "this looks like TorchScript", source_format="torch")
    torch.save({"w": torch.ones(2)}, tmp_path / "b.pt")
    refused(tmp_path / "b.pt", "bad-source", "this looks like torch.save", source_format="torchscript")


def test_damage(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(Model(), torch.ones(1, 2)), tmp_path / "a.pt")
    only_errors(tmp_path / "a.pt")
    only_errors(tmp_path / "a.pt", "torchscript")


def test_tensors_are_mapped(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 3)), tmp_path / "a.pt")
    with open_source(str(tmp_path / "a.pt")) as source:
        weight = with_arrays(source.tree)["weight"]
        assert isinstance(weight, np.ndarray)
        assert mapping_of(weight) is not None
        assert not weight.flags.writeable
