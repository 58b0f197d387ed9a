"""Model cards: the README.md beside a checkpoint, as the hub of Hugging Face shows it."""

from __future__ import annotations

import json
import os
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import ckptfmt
from ckptfmt.errors import fault
from ckptfmt.format.names import path_label
from ckptfmt.storage import path_of

from .checkpoint import PathLike

README = "README.md"
MOST = 1000  # rows of the table of tensors
_USE = """\
```python
from huggingface_hub import snapshot_download
from {module} import {model_class}

from ckptfmt_torch.transformers import from_pretrained

model = from_pretrained({model_class}, snapshot_download("{name}"))
```"""


def write_model_card(path: PathLike, name: str, *, text: str = "", overwrite: bool = False, **about: Any) -> str:
    """Write `README.md` beside a checkpoint at `path`, and give its path: what the model is, how many parameters of
    which dtypes it has, how it is loaded from the hub, where it is called `name` ("owner/model"), and all its tensors.

    `text` stands at the beginning; `about` are further fields of the card that the hub knows (`license="apache-2.0"`,
    `language=["en"]`, `datasets=`, `base_model=`). No tensor is read. Raises `exists` where there is a README.md unless
    told to `overwrite` it, and what `ckptfmt.open` raises.
    """
    place = path_of(path)
    target = os.path.join(os.path.dirname(place), README)
    if os.path.lexists(target) and not overwrite:
        raise fault("exists", "there is something at this path already", path=target)
    with ckptfmt.open(place) as checkpoint:
        card = _card(checkpoint, os.path.basename(place), name, text, about)
    Path(target).write_text(card, encoding="utf-8")
    return target


def _card(checkpoint: ckptfmt.Checkpoint, file: str, name: str, text: str, about: dict[str, Any]) -> str:
    metadata = checkpoint.metadata if isinstance(checkpoint.metadata, dict) else {}
    config = metadata.get("config")
    found = config.get("architectures") if isinstance(config, dict) else None
    architecture = found[0] if isinstance(found, list) and found and _is_name(found[0]) else None
    fields = {
        "library_name": "transformers" if architecture else "ckptfmt",
        "tags": ["ckptfmt"],
        **about,
    }
    once = {getattr(tensor, "name", at): tensor for at, tensor in checkpoint.tensors.items()}.values()
    elements: Counter[str] = Counter()
    for tensor in once:
        elements[str(tensor.dtype)] += prod(tensor.shape)
    rows = {
        "architecture": architecture,
        "parameters": f"{sum(elements.values()):,}",
        "dtypes": ", ".join(f"{dtype} ({count:,})" for dtype, count in elements.most_common()),
        "tensors": f"{len(checkpoint.tensors):,}",
        "file": f"`{file}`, the sha256 of whose manifest is `{checkpoint.manifest_sha256}`",
    }
    model_class = {"module": "transformers", "model_class": architecture}
    parts = [
        "---\n" + "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items()) + "---",
        f"# {name}",
        text.strip(),
        _table(("", ""), [(key, value) for key, value in rows.items() if value]),
        "## Use\n\n" + _USE.format(name=name, **model_class) if architecture else "",
        "## Tensors",
        _table(("name", "dtype", "shape"), _rows(checkpoint)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _is_name(value: Any) -> bool:
    """Whether a value can name a class: it goes into Python that people copy."""
    return isinstance(value, str) and value.isidentifier()


def _rows(checkpoint: ckptfmt.Checkpoint) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for path, tensor in list(checkpoint.tensors.items())[:MOST]:
        shown = path_label(path).replace("`", "'").replace("|", "\\|")
        rows.append((f"`{shown}`", str(tensor.dtype), " × ".join(map(str, tensor.shape)) or "1 number"))
    if len(checkpoint.tensors) > MOST:
        rows.append((f"{len(checkpoint.tensors) - MOST:,} more", "", ""))
    return rows


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
