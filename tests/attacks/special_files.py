"""Pipes, devices and sockets in the place of objects: reading would wait for ever, or never end."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
from attack import attempt, folder, load

import ckptfmt


def main() -> None:
    with folder() as here:
        os.chdir(here)  # a socket's path must be short
        for kind in ("pipe", "socket", "folder"):
            for victim in ("tensors/a/c/0", "manifest.msgpack", "COMMIT"):
                path = Path(f"{kind}-{victim.replace('/', '-')}.ckpt")
                ckptfmt.save(path, {"a": np.arange(4)}, layout="loose", durable=False)
                (path / victim).unlink()
                if kind == "pipe":
                    os.mkfifo(path / victim)
                elif kind == "folder":
                    (path / victim).mkdir()
                else:
                    with socket.socket(socket.AF_UNIX) as server:
                        server.bind(str(path / victim))
                codes = ("missing-object", "not-a-checkpoint", "io")
                attempt(f"a {kind} in the place of {victim}", path, *codes, actions=(load,))
        os.mkfifo("pipe.ckpt")
        attempt("a pipe as checkpoint", Path("pipe.ckpt"), "not-a-checkpoint", actions=(load,), size=0)
        attempt("a device as checkpoint", Path("/dev/zero"), "not-a-checkpoint", actions=(load,), size=0)


if __name__ == "__main__":
    main()
