"""The plugin for PyTorch Lightning, in the real Trainer."""

from __future__ import annotations

import datetime
import enum
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from damage import leftovers

import ckptfmt

torch = pytest.importorskip("torch")
lightning = pytest.importorskip("lightning")
pytestmark = pytest.mark.filterwarnings("default")  # its warnings are its own

from ckptfmt_torch.lightning import CkptfmtIO, progress_of  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402


class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Dropout(0.1), torch.nn.Linear(width, 1))

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = self.layer(batch).square().mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)]


def fit(path: Path, epochs: int, layout: str = "file", resume: str | None = None, plugin: Any = None) -> Any:
    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(torch.randn(24, 3), batch_size=8)
    saving = ModelCheckpoint(path, filename="{step}", monitor="loss", save_top_k=2, save_last=True, every_n_epochs=1)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        plugins=[plugin or CkptfmtIO(layout=layout)],
        callbacks=[saving],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
    )
    module = Module()
    trainer.fit(module, data, ckpt_path=resume)
    return module, trainer, saving


@pytest.mark.parametrize("layout", ["file", "loose"])
def test_a_trainer_saves_removes_and_resumes(tmp_path: Path, layout: str) -> None:
    _, _, saving = fit(tmp_path, 4, layout)
    names = sorted(os.listdir(tmp_path))
    assert len(names) == 3, "two are the best, and the last; the others were removed"
    assert leftovers(tmp_path) == []
    for name in names:
        assert ckptfmt.verify(tmp_path / name).ok
    with ckptfmt.open(saving.last_model_path) as checkpoint:
        assert checkpoint.layout == layout
        assert checkpoint["hyper_parameters/width"] == 4
        assert checkpoint["state_dict/layer.0.weight"].shape == (4, 3)
        before = checkpoint.load(framework="torch")
    module, trainer, _ = fit(tmp_path / "again", before["epoch"] + 1, layout, saving.last_model_path)
    assert trainer.global_step == before["global_step"] > 3
    for name, value in module.state_dict().items():
        assert torch.equal(value, before["state_dict"][name]), name
    _, trainer, _ = fit(tmp_path / "more", 6, layout, saving.last_model_path)
    assert trainer.global_step == 18
    assert [group["lr"] for group in trainer.optimizers[0].param_groups] == pytest.approx([0.01 * 0.9**6])


def test_resuming_is_exact(tmp_path: Path) -> None:
    """As exact as with Lightning's own files: it keeps no random generators, so none is used here."""

    def weights(path: Path, plugin: Any) -> dict[str, torch.Tensor]:
        _, _, saving = fit(path / "a", 2, plugin=plugin)
        module, *_ = fit(path / "b", 4, resume=saving.last_model_path, plugin=plugin)
        state: dict[str, torch.Tensor] = module.state_dict()
        return state

    ours = weights(tmp_path / "ours", CkptfmtIO())
    theirs = weights(tmp_path / "theirs", lightning.fabric.plugins.TorchCheckpointIO())
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_in_the_background(tmp_path: Path) -> None:
    plugin = lightning.pytorch.plugins.io.AsyncCheckpointIO(CkptfmtIO())
    _, _, saving = fit(tmp_path, 2, plugin=plugin)
    assert ckptfmt.verify(saving.last_model_path).ok


def test_options_are_looked_at_before_a_run_begins() -> None:
    with pytest.raises(
        ckptfmt.InputError, match=r"CkptfmtIO has no option 'compresion'; did you mean 'compression'\?"
    ) as raised:
        CkptfmtIO(compresion="zstd")
    assert raised.value.code == "bad-option"
    with pytest.raises(ckptfmt.InputError, match="CkptfmtIO has no option 'path'"):  # which Lightning gives
        CkptfmtIO(path="x.ckpt")


def test_what_cannot_be_held_is_named(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError, match="hyper_parameters/model"):
        CkptfmtIO().save_checkpoint({"hyper_parameters": {"model": object()}}, tmp_path / "x.ckpt")
    assert os.listdir(tmp_path) == []


def test_on_a_store() -> None:
    plugin = CkptfmtIO()
    plugin.save_checkpoint({"state_dict": {"w": torch.ones(3)}, "at": Path("a/b")}, "memory://lightning/x.ckpt")
    found = plugin.load_checkpoint("memory://lightning/x.ckpt", map_location=lambda storage, place: storage)
    assert torch.equal(found["state_dict"]["w"], torch.ones(3))
    assert found["at"] == Path("a/b")
    plugin.remove_checkpoint("memory://lightning/x.ckpt")
    plugin.remove_checkpoint("memory://lightning/x.ckpt")
    with pytest.raises(ckptfmt.MissingError):
        plugin.load_checkpoint("memory://lightning/x.ckpt")


def test_a_module_among_the_hyperparameters_is_named(tmp_path: Path) -> None:
    """Its state alone would not make it again."""

    class WithModule(Module):
        def __init__(self, act: torch.nn.Module, width: int = 4) -> None:
            super().__init__(width)
            self.save_hyperparameters()

    trainer = lightning.Trainer(max_epochs=1, plugins=[CkptfmtIO()], accelerator="cpu", logger=False, barebones=True)
    trainer.strategy.connect(WithModule(torch.nn.ReLU()))
    with pytest.raises(ckptfmt.InputError, match=r"ignore=\['act'\]") as raised:
        trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert (raised.value.code, raised.value.tensor) == ("unsupported-leaf", "hyper_parameters/act")
    assert not list(tmp_path.iterdir())


class Mode(enum.Enum):
    FAST = 1


class WithMode(Module):
    def __init__(self, mode: Any, act: Any, more: Any = None, width: int = 4) -> None:
        super().__init__(width)
        self.save_hyperparameters()


def trainer_of(path: Path, plugin: Any = None, **options: Any) -> Any:
    return lightning.Trainer(
        max_epochs=1,
        plugins=[plugin or CkptfmtIO()],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
        **options,
    )


def test_hyperparameters_are_checked_before_the_run_begins(tmp_path: Path) -> None:
    """All places at once; the callback is found through the entry point."""
    steps: list[int] = []

    class Seen(WithMode):
        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            steps.append(index)
            return super().training_step(batch, index)

    data = torch.utils.data.DataLoader(torch.randn(8, 3), batch_size=8)
    module = Seen(Mode.FAST, torch.nn.ReLU, {"act": torch.nn.Tanh(), "f": [len]})
    with pytest.raises(ckptfmt.InputError) as raised:
        trainer_of(tmp_path).fit(module, data)
    assert steps == []
    refused = {refusal.path: refusal for refusal in raised.value.report.refused}
    assert set(refused) == {"hyper_parameters/act", "hyper_parameters/more/act", "hyper_parameters/more/f/0"}
    assert "the class torch.nn.modules.activation.ReLU" in refused["hyper_parameters/act"].found
    assert all("ignore=['" in refusal.advice for refusal in refused.values())
    assert all(path in str(raised.value) for path in refused)
    trainer_of(tmp_path, plugin=CkptfmtIO(skip=["**/act", "**/f"])).fit(module, data)
    assert steps == [0]
    (saved,) = tmp_path.rglob("*.ckpt")
    assert ckptfmt.load(saved, select="hyper_parameters/more") == {"hyper_parameters": {"more": {}}}


def test_a_run_that_saves_nothing_may_have_any_hyperparameters(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, enable_checkpointing=False)
    trainer.fit(WithMode(Mode.FAST, torch.nn.ReLU), torch.utils.data.DataLoader(torch.randn(8, 3), batch_size=8))
    with pytest.raises(ckptfmt.InputError, match=r"ReLU at 'hyper_parameters/act': .*ignore=\['act'\]"):
        trainer.save_checkpoint(tmp_path / "x.ckpt")


def test_plain_values_among_the_hyperparameters(tmp_path: Path) -> None:
    module = WithMode(Mode.FAST, Path("a/b"), {"of": {1, 2}, "at": datetime.date(2024, 1, 1), "c": Counter("aab")})
    trainer = trainer_of(tmp_path)
    trainer.fit(module, torch.utils.data.DataLoader(torch.randn(8, 3), batch_size=8))
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    with pytest.warns(ckptfmt.UnknownTagWarning, match="Mode"):
        found = CkptfmtIO().load_checkpoint(tmp_path / "x.ckpt")["hyper_parameters"]
    assert (found["mode"], found["act"], found["more"]) == (1, Path("a/b"), module.hparams["more"])
    assert type(found["more"]["c"]) is Counter


def test_what_is_monitored_is_listed(tmp_path: Path) -> None:
    """`ckptfmt ls` shows epoch, step and metric of each checkpoint, and sorts by them."""
    fit(tmp_path, epochs=3, plugin=CkptfmtIO(metadata={"lr": 0.01, "epoch": 7}))
    with ckptfmt.open(tmp_path / "last.ckpt") as checkpoint:
        assert checkpoint.metadata.keys() == {"epoch", "global_step", "loss", "lr"}
        assert checkpoint.metadata["global_step"] == 9
        assert checkpoint.metadata["epoch"] == 7  # what is given counts
    done = subprocess.run(
        [sys.executable, "-m", "ckptfmt", "ls", "--json", "--sort", "loss", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads(done.stdout)["steps"]
    losses = [row["metrics"]["loss"] for row in rows]
    assert losses == sorted(losses)
    assert {row["step"] for row in rows} <= {3, 6, 9}
    assert progress_of({"epoch": 2, "callbacks": {"M": {"monitor": None}, "N": 3}}) == {"epoch": 2}
    assert progress_of({"callbacks": {"M": {"monitor": "a", "current_score": torch.ones(2)}}}) == {}
