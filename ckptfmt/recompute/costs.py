"""What a step, an adjoint step, and a snapshot on the disk cost."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..calls import checked_class
from ..errors import fault


@checked_class
@dataclass(frozen=True, slots=True)
class Costs:
    """What things cost, in seconds or in any other unit. `forward`: a step. `adjoint`: an adjoint step. `write` and
    `read`: a snapshot on the disk. Those in memory cost nothing. Raises `InputError` (`bad-option`)."""

    forward: float = 1.0
    adjoint: float = 1.0
    write: float = 2.0
    read: float = 2.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise fault("bad-option", f"{field.name}=", found=value, expected="a number, 0 or more")
        if not self.forward:
            raise fault("bad-option", "forward=", found=self.forward, expected="more than 0")
