"""Conversion between this format and others, both ways where the other side can hold it. See docs/convert.md."""

from __future__ import annotations

from .batch import Outcome, convert_each
from .converter import ConvertReport, convert
from .opening import open_source
from .source import KINDS, Loss
from .table import FORMATS, Format

__all__ = ["FORMATS", "KINDS", "ConvertReport", "Format", "Loss", "Outcome", "convert", "convert_each", "open_source"]
