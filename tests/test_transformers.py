"""The callback for Hugging Face's Trainer, in the real Trainer: a stopped run goes on to the bit."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import ckptfmt
from ckptfmt.manager import CheckpointManager, Last

torch = pytest.importorskip("torch")
ckptfmt_torch = pytest.importorskip("ckptfmt_torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")
pytestmark = pytest.mark.filterwarnings("default")  # its warnings are its own

from ckptfmt_torch.transformers import CkptfmtCallback  # noqa: E402

STEPS = 12


class Data(torch.utils.data.Dataset[Any]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        tokens = (torch.arange(8) * (index + 1)) % 32
        return {"input_ids": tokens, "labels": tokens}


class StopAt(transformers.TrainerCallback):  # type: ignore[misc, name-defined]
    """Sends the signal of a preemption."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def train(path: Path, *callbacks: Any, **options: Any) -> Any:
    config = transformers.GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=1, n_head=2)  # with dropout
    transformers.set_seed(0)
    model = transformers.GPT2LMHeadModel(config)
    arguments = transformers.TrainingArguments(
        path / "hf",
        max_steps=STEPS,
        per_device_train_batch_size=4,
        save_strategy="no",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        lr_scheduler_type="cosine",
    )
    with CheckpointManager(path / "run", durable=False, **options) as manager:
        manager.on_preemption()
        callback = CkptfmtCallback(manager)
        trainer = transformers.Trainer(model, arguments, train_dataset=Data(), callbacks=[callback, *callbacks])
        trainer.train(resume_from_checkpoint=callback.resume_from(path / "resume"))
    return trainer


def test_a_preempted_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    straight = train(tmp_path / "straight", schedule=4, keep=2)
    manager = CheckpointManager(tmp_path / "straight" / "run")
    assert [step.step for step in manager.steps()] == [8, 12]
    latest = manager.latest()
    assert latest is not None
    assert latest.metrics["loss"] > 0
    with manager.open() as checkpoint:
        weight = "model/transformer.wte.weight"
        assert checkpoint[weight].shape == (32, 16)
        assert checkpoint["model/lm_head.weight"].name == checkpoint[weight].name, "tied weights are stored once"

    stopped = train(tmp_path / "stopped", StopAt(6), schedule=4, keep=[Last(1)])
    assert stopped.state.global_step == 7
    manager = CheckpointManager(tmp_path / "stopped" / "run")
    assert [step.step for step in manager.steps()] == [7], "it was saved, whatever the schedule says"
    assert all(ckptfmt.verify(step.path).ok for step in manager.steps())

    again = train(tmp_path / "stopped", schedule=4, keep=[Last(1)])
    assert again.state.global_step == STEPS
    for (name, one), other in zip(straight.model.state_dict().items(), again.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    losses = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in (straight, again)]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED"])
def test_runs_whose_ranks_hold_parts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    from accelerate import DistributedType, PartialState

    class Sharded(CkptfmtCallback):  # as the plugins of accelerate say where there is an accelerator
        def on_train_begin(self, *state: Any, **more: Any) -> None:
            monkeypatch.setitem(PartialState._shared_state, "distributed_type", DistributedType[kind])
            super().on_train_begin(*state, **more)

    monkeypatch.setitem(globals(), "CkptfmtCallback", Sharded)
    with pytest.raises(ckptfmt.InputError, match=kind) as raised:
        train(tmp_path, schedule=4)
    assert raised.value.code == "bad-option"
    assert CheckpointManager(tmp_path / "run").steps() == []


def test_a_run_without_checkpoints_begins(tmp_path: Path) -> None:
    callback = CkptfmtCallback(CheckpointManager(tmp_path / "run"))
    assert callback.resume_from(tmp_path / "resume") is None
    with pytest.raises(ckptfmt.MissingError):
        callback.resume_from(tmp_path / "resume", 3)


def test_the_folder_of_a_model_and_the_weights_of_a_run_back(tmp_path: Path) -> None:
    """What `save_pretrained` writes is read, in one file and in many; what it reads is written, from a training run."""
    config = transformers.GPT2Config(
        vocab_size=32, n_positions=8, n_embd=8, n_layer=1, n_head=2, tie_word_embeddings=False
    )
    model = transformers.GPT2LMHeadModel(config)
    for name, size in (("whole", "50GB"), ("shards", "1KB")):
        model.save_pretrained(tmp_path / name, max_shard_size=size)
        report = ckptfmt.convert(tmp_path / name, tmp_path / f"{name}.ckpt")
        assert report.losses == ()
        ckptfmt_torch.load_into(tmp_path / f"{name}.ckpt", transformers.GPT2LMHeadModel(config))
    with CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, {"model": model, "step": 1}, metrics={"loss": 2.5})
        step = manager.latest()
    config.save_pretrained(tmp_path / "back")
    assert step is not None
    report = ckptfmt.convert(step.path, tmp_path / "back" / "model.safetensors", root="model")
    assert report.losses == ()
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "back")
    assert all(torch.equal(again.state_dict()[name], value) for name, value in model.state_dict().items())
