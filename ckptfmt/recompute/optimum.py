"""The fewest steps that any schedule with one tier can do with, in closed form."""

from __future__ import annotations

from math import comb


def fewest_steps(steps: int, slots: int) -> int:
    """How often the step must be called at least to go forward over `steps` and back again with `slots` snapshots, the
    initial state among them: the formula of Griewank and Walther, and one more call, for the last step, which gives the
    final state.

    With the least r for which C(slots + r, slots) is not below `steps`, each step is called at most r times, all
    together r · steps − C(slots + r, r − 1) times (Revolve, ACM TOMS 26, 2000, equation 2).
    """
    if steps <= 1:
        return steps
    if slots == 1:
        return steps * (steps - 1) // 2 + 1  # r is the number of steps less one
    r = 1
    while comb(slots + r, slots) < steps:
        r += 1
    return r * steps - comb(slots + r, r - 1) + 1
