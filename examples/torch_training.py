"""Training in plain torch with a checkpoint manager: stop it at any moment, run it again, and it goes on to the bit.

    python examples/torch_training.py RUN [STEPS]

Needs the package torch. What a run needs to go on is all in `tree`: module, optimizer, scheduler, and the state of the
random generator, which draws the batches and what dropout leaves out.
"""

from __future__ import annotations

import sys
from typing import Any

import ckptfmt_torch
import torch

from ckptfmt import CheckpointManager
from ckptfmt.manager import Best, Last


def main(directory: str = "run", steps: str = "200") -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 64), torch.nn.Dropout(0.1), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, int(steps))
    with CheckpointManager(directory, schedule=10, keep=[Last(2), Best("loss")]) as manager:
        manager.on_preemption()
        tree: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "step": 0}
        tree["rng"] = torch.get_rng_state()
        if manager.latest() is not None:
            tree = manager.restore(load=ckptfmt_torch.load, into=tree, fallback=True)  # fills the objects themselves
            torch.set_rng_state(tree["rng"])
        print(f"starting at step {tree['step']}")
        while tree["step"] < int(steps):
            x = torch.randn(32, 8)
            loss = (model(x) - x.sort(dim=1).values).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            tree |= {"step": tree["step"] + 1, "rng": torch.get_rng_state()}
            manager.save(tree["step"], tree, metrics={"loss": loss}, block=False)  # copies the tensors, and returns
            if manager.preempted:
                break
    print(f"stopped at step {tree['step']}; kept {', '.join(str(step.step) for step in manager.steps())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
