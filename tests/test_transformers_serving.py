"""Weights for engines that serve models, and the card of a model on the hub."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import ckptfmt

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("default")  # its warnings are its own

from ckptfmt_torch.transformers import from_pretrained, save_pretrained, write_model_card  # noqa: E402
from ckptfmt_torch.weights import weights  # noqa: E402
from hub import hub  # noqa: E402
from tiny_models import MODELS, logits, made  # noqa: E402


@pytest.mark.parametrize("layout", ["file", "packed"])
def test_weights_one_after_another(tmp_path: Path, layout: str) -> None:
    """Each once, by the name that transformers has in its files, in the order of the file."""
    model = made("gpt2")
    ckptfmt_torch.save(tmp_path / "model.ckpt", model, layout=layout)
    found = dict(weights(tmp_path))
    state = model.state_dict()
    assert set(found) == set(state) - {"lm_head.weight"}
    assert all(torch.equal(found[name], state[name]) for name in found)
    places = [tensor.data_ptr() for tensor in found.values()]
    assert places == sorted(places)
    ckptfmt_torch.save(tmp_path / "run.ckpt", {"model": {"a": {"b": torch.ones(2)}}, "step": 3})
    assert [name for name, _ in weights(tmp_path / "run.ckpt", prefix="model", verify=False)] == ["a.b"]


def test_damage_is_found_before_the_first_tensor(tmp_path: Path) -> None:
    ckptfmt_torch.save(tmp_path / "model.ckpt", {"w": torch.ones(4000)})
    data = bytearray((tmp_path / "model.ckpt").read_bytes())
    data[5000] ^= 1
    (tmp_path / "model.ckpt").write_bytes(data)
    with pytest.raises(ckptfmt.CorruptError):
        next(weights(tmp_path / "model.ckpt"))


class Loader(ABC):
    """`BaseModelLoader` of vLLM, as far as loaders of others see it."""

    def __init__(self, load_config: Any) -> None:
        self.load_config = load_config

    @abstractmethod
    def download_model(self, model_config: Any) -> None: ...

    @abstractmethod
    def load_weights(self, model: Any, model_config: Any) -> None: ...


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch) -> dict[str, type[Loader]]:
    """The registry of a stand-in for vLLM, which is too large to be installed here, with its plugin loaded."""
    known: dict[str, type[Loader]] = {}

    def register_model_loader(load_format: str) -> Callable[[type[Loader]], type[Loader]]:
        def register(loader: type[Loader]) -> type[Loader]:
            assert issubclass(loader, Loader)
            known[load_format] = loader
            return loader

        return register

    names = ["vllm", "vllm.model_executor", "vllm.model_executor.model_loader"]
    for name in [*names, "vllm.model_executor.model_loader.base_loader"]:
        module: Any = ModuleType(name)
        module.register_model_loader, module.BaseModelLoader, module.__path__ = register_model_loader, Loader, []
        monkeypatch.setitem(sys.modules, name, module)
    EntryPoint("ckptfmt", "ckptfmt_torch.vllm:register", "vllm.general_plugins").load()()
    return known


class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
    """As vLLM's models take weights."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def load_weights(self, found: Any) -> None:
        names = dict(self.model.named_parameters())
        for name, tensor in found:
            names[name].data.copy_(tensor)


def test_the_loader_of_vllm(tmp_path: Path, loaders: dict[str, type[Loader]]) -> None:
    trained = made("gpt2")
    save_pretrained(trained, tmp_path / "folder")
    ckptfmt_torch.save(tmp_path / "run.ckpt", {"model": trained})
    for config, extra in [
        (SimpleNamespace(model=str(tmp_path / "folder")), None),
        (SimpleNamespace(model="elsewhere", model_weights=str(tmp_path / "folder")), {"verify": False}),
        (SimpleNamespace(model=str(tmp_path / "run.ckpt")), {"prefix": "model"}),
    ]:
        loader = loaders["ckptfmt"](SimpleNamespace(model_loader_extra_config=extra))
        loader.download_model(config)
        model = Model(transformers.GPT2LMHeadModel(trained.config))
        loader.load_weights(model, config)
        assert torch.equal(logits("gpt2", model.model), logits("gpt2", trained))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ckptfmt.CkptError, match="nor one other checkpoint"):
        loader.download_model(SimpleNamespace(model=str(tmp_path / "empty")))


def test_a_model_card(tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    model = made("gpt2")
    save_pretrained(model, tmp_path / "m")
    target = write_model_card(
        tmp_path / "m" / "model.ckpt", "me/tiny", text="Tiny.", license="mit", base_model='a: "b"', language=["en"]
    )
    assert target == str(tmp_path / "m" / "README.md")
    card = huggingface_hub.ModelCard.load(target)
    about = {"license": "mit", "base_model": 'a: "b"', "language": ["en"]}
    assert card.data.to_dict() == {"library_name": "transformers", "tags": ["ckptfmt"], **about}
    for words in (
        "\n# me/tiny\n\nTiny.\n",
        "| architecture | GPT2LMHeadModel |",
        f"| parameters | {sum(one.numel() for one in model.parameters()):,} |",
        "| tensors | 29 |",
        "from transformers import GPT2LMHeadModel",
        'from_pretrained(GPT2LMHeadModel, snapshot_download("me/tiny"))',
        "| `transformer.wte.weight` | float32 | 32 × 16 |",
    ):
        assert words in card.content
    with pytest.raises(ckptfmt.CkptError) as raised:
        write_model_card(tmp_path / "m" / "model.ckpt", "me/tiny")
    assert raised.value.code == "exists"


def test_a_card_has_nothing_of_a_checkpoint_that_is_no_name(tmp_path: Path) -> None:
    tree = {"a|b`c\n": torch.ones(()), **{f"w{n}": torch.ones(1) for n in range(1200)}}
    metadata = {"config": {"architectures": ["X\nimport os"]}}
    ckptfmt_torch.save(tmp_path / "x.ckpt", tree, metadata=metadata)
    text = Path(write_model_card(tmp_path / "x.ckpt", "x", overwrite=True)).read_text()
    assert "import" not in text
    assert "a\\|b'c" in text
    assert "201 more" in text


def test_pushed_to_the_hub_and_pulled(tmp_path: Path) -> None:
    """By huggingface_hub itself: one line each."""
    huggingface_hub = pytest.importorskip("huggingface_hub", minversion="1.0")
    model = made("gpt2")
    save_pretrained(model, tmp_path / "saved")
    write_model_card(tmp_path / "saved" / "model.ckpt", "me/tiny", license="mit")
    with hub() as url:
        api = huggingface_hub.HfApi(endpoint=url, token="of nobody")
        api.upload_folder(repo_id="me/tiny", folder_path=tmp_path / "saved")
        folder = api.snapshot_download("me/tiny", cache_dir=tmp_path / "cache")
    assert {file.name for file in Path(folder).iterdir()} == {file.name for file in (tmp_path / "saved").iterdir()}
    assert torch.equal(logits("gpt2", from_pretrained(MODELS["gpt2"].auto, folder)), logits("gpt2", model))
    ckptfmt.convert(folder, tmp_path / "x.safetensors")


def test_a_snapshot_of_the_hub(tmp_path: Path) -> None:
    """Whose files are links to blobs."""
    model = made("t5")
    save_pretrained(model, tmp_path / "saved")
    repository = tmp_path / "models--me--tiny"
    snapshot = repository / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted((tmp_path / "saved").iterdir())):
        file.rename(repository / "blobs" / f"{number}")
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    again = from_pretrained(MODELS["t5"].auto, snapshot)
    assert torch.equal(logits("t5", again), logits("t5", model))
