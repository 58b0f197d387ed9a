"""Pages about checkpoints and runs: what is read becomes data, and the data one HTML file."""

from __future__ import annotations

from .page import HtmlReport
from .report import report

__all__ = ["HtmlReport", "report"]
