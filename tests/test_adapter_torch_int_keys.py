"""Training goes on from what torch.distributed.checkpoint wrote as if it had not stopped, although that makes text of
int keys."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from peers import peer

import ckptfmt

ckptfmt_torch = peer("ckptfmt_torch")
peer("ckptfmt_torch.dcp")
torch = peer("torch")
dcp = peer("torch.distributed.checkpoint")

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "no state": lambda parameters: torch.optim.SGD(parameters, 0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9),
    "two groups": lambda parameters: torch.optim.AdamW([{"params": [one]} for one in parameters], 0.1),
}
Training = tuple[Any, Any, Any]


def training(kind: str) -> Training:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    optimizer = OPTIMIZERS[kind](module.parameters())
    return module, optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 5])


def go_on(run: Training, steps: int) -> Any:
    module, optimizer, scheduler = run
    for _ in range(steps):
        optimizer.zero_grad()
        module(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    return module.weight.tolist(), scheduler.get_last_lr()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("by", ["converted", "written", "loaded by torch"])
def test_the_next_steps_are_those_of_an_uninterrupted_run(tmp_path: Path, kind: str, by: str) -> None:
    run = training(kind)
    go_on(run, 2)
    state = dict(zip(("model", "optimizer", "scheduler"), (one.state_dict() for one in run), strict=True))
    again = training(kind)
    into = dict(zip(state, again, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if by == "written":
            dcp.save(state, storage_writer=ckptfmt_torch.dcp.StorageWriter(tmp_path / "x.ckpt"), no_dist=True)
        else:
            dcp.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
            assert not ckptfmt.convert(tmp_path / "dcp", tmp_path / "x.ckpt").losses
    if by == "loaded by torch":
        found = ckptfmt.load(tmp_path / "x.ckpt", framework="torch")
        for name, one in into.items():
            one.load_state_dict(found[name])
    else:
        ckptfmt_torch.load(tmp_path / "x.ckpt", into=into)
    assert go_on(again, 4) == go_on(run, 4)


def test_keys_of_which_nobody_knows_are_a_loss(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(
            {"by_rank": {0: torch.ones(2), 1: 5}, "m": {"0.weight": 1}}, checkpoint_id=tmp_path / "x", no_dist=True
        )
    report = ckptfmt.convert(tmp_path / "x", tmp_path / "x.ckpt", allow_loss=True)
    assert [(loss.kind, loss.path) for loss in report.losses] == [("nesting", "by_rank")]
    assert list(ckptfmt.load(tmp_path / "x.ckpt")["by_rank"]) == ["0", "1"]
