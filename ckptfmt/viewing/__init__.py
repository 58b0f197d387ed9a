"""Looking at checkpoints in a browser: one page, and a server of this machine that gives it what it is asked to show.

`page.html` is the whole program of the page, made from `viewer/`; it needs no server, and opens what is dropped on it.
"""

from __future__ import annotations

from .page import page
from .server import View, view

__all__ = ["View", "page", "view"]
