"""What is compared with what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Cluster = Literal["none", "torch", "jax"]


@dataclass(frozen=True, slots=True)
class Contest:
    """Our side, the side that it is compared with, and how many times as fast ours has to be. Each side is the name of
    an action; what loads says in `saved_by` what saves for it. `cluster`: how the processes find each other."""

    title: str
    ours: str
    theirs: str
    needed: float
    ranks: int = 1
    cluster: Cluster = "none"
    saved_by: tuple[str, str] | None = None


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


SAVED = ("save_torch", "torch_save")
CONTESTS = (
    Contest("torch, save beside NumPy arrays", "save_torch", "save_numpy", 0.95),
    Contest("torch, load beside NumPy arrays", "load_torch", "load_numpy", 0.95, saved_by=("save_torch", "save_numpy")),
    Contest("torch, save beside torch.save", "save_torch", "torch_save", 1.0),
    Contest("torch, load_into beside load_state_dict(torch.load)", "load_into", "load_state_dict", 1.5, saved_by=SAVED),
    Contest(
        "torch, load_into a meta module beside assign=True",
        "load_into_meta",
        "load_state_dict_meta",
        1.0,
        saved_by=SAVED,
    ),
    *(
        Contest(
            f"torch, load_into with {what} beside load_state_dict(torch.load(mmap=True))",
            f"load_into_hook_{kind}",
            f"load_state_dict_hook_{kind}",
            0.8,
            saved_by=("save_nothing", "save_nothing"),
        )
        for kind, what in (("root", "a hook at the root"), ("each", "a hook in each part"))
    ),
    *(
        contest
        for ranks, needed in ((1, 3.0), (2, 1.0), (4, 1.0))
        for contest in (
            Contest(f"DCP, save, {_processes(ranks)}", "dcp_save", "fs_save", needed, ranks, "torch"),
            Contest(
                f"DCP, save flushed to the disk, {_processes(ranks)}",
                "dcp_save_flushed",
                "fs_save_flushed",
                needed,
                ranks,
                "torch",
            ),
            Contest(
                f"DCP, load, {_processes(ranks)}",
                "dcp_load",
                "fs_load",
                needed,
                ranks,
                "torch",
                ("dcp_save", "fs_save"),
            ),
        )
    ),
    *(
        contest
        for ranks, save, restore in ((1, 10.0, 3.0), (2, 1.0, 1.0))
        for contest in (
            # Orbax flushes, and offers no switch for it
            Contest(f"JAX, save beside Orbax, {_processes(ranks)}", "save_jax", "save_orbax", save, ranks, "jax"),
            Contest(
                f"JAX, save flushed to the disk beside Orbax, {_processes(ranks)}",
                "save_jax_flushed",
                "save_orbax",
                save,
                ranks,
                "jax",
            ),
            Contest(
                f"JAX, restore beside Orbax, {_processes(ranks)}",
                "load_jax",
                "load_orbax",
                restore,
                ranks,
                "jax",
                ("save_jax", "save_orbax"),
            ),
        )
    ),
)
