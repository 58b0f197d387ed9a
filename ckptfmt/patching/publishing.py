"""Attempts, by the options that patches and what is made of them have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..storage import IN_FLIGHT, Attempt, attempt_for
from ..writing.options import PublishOptions


def attempt_at(target: str, layout: str, options: PublishOptions, storage_options: Mapping[str, Any] | None) -> Attempt:
    """An attempt at a target; raises `exists` and the like before anything is done."""
    return attempt_for(
        target,
        directory=layout != "file",
        overwrite=options.get("overwrite", False),
        durable=options.get("durable", True),
        options=storage_options,
        in_flight=options.get("max_bytes_in_flight", IN_FLIGHT),
    )
