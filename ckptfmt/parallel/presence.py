"""Whether a process still runs, as another process of the same machine can tell."""

from __future__ import annotations

import os
from functools import cache


def presence(process: int | None = None) -> str:
    """What tells this process (or another of this machine) from all others: the machine's start, the namespace of its
    process numbers, its number, and when it began. Empty where the system does not say."""
    try:
        number = os.getpid() if process is None else process
        return f"{_machine()} {number} {_began(number)}"
    except OSError:
        return ""


def is_gone(said: str) -> bool:
    """Whether the process that said this has ended. False where that cannot be known: it is of another machine."""
    machine, _, process = said.rpartition(" ")[0].rpartition(" ")
    try:
        if not machine or machine != _machine():
            return False
    except OSError:
        return False
    return presence(int(process)) != said


@cache
def _machine() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return f"{os.uname().nodename} {file.read().strip()} {os.readlink('/proc/self/ns/pid')}"


def _began(process: int) -> str:
    """When it began, in ticks since the machine's start; raises OSError if it has ended."""
    with open(f"/proc/{process}/stat", "rb") as file:
        state, *fields = file.read().rpartition(b")")[2].split()  # the name before may have any characters
    if state in b"ZX":
        raise ProcessLookupError(process)
    return fields[18].decode()
