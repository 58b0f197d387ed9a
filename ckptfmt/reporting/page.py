"""A page: one HTML file that asks for nothing from elsewhere. Data stand in it as JSON, its own scripts draw them, and
a policy lets no other script run, whatever a name says."""

from __future__ import annotations

import base64
import hashlib
import html
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import Any

from .._version import __version__
from ..brief import Brief
from ..calls import takes
from ..errors import os_fault
from ..storage import path_of
from .words import as_json, cut

LIBRARIES = ("vendored/d3.min.js", "vendored/plot.umd.min.js")
OWN = ("elements.js", "table.js", "charts.js", "tree_map.js", "checkpoint.js", "comparison.js", "run.js", "page.js")
FRAME = 720  # height of a page in a notebook, in pixels


@dataclass(frozen=True, slots=True, repr=False)
class HtmlReport(Brief):
    """A page that `report` has made: its `title`, all of it as `html`, its `kind`, "checkpoint", "comparison" or "run",
    and how many tensors, or checkpoints of a run, are `damaged` or could not be read."""

    title: str
    html: str
    kind: str
    damaged: int = 0

    @takes()
    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the page as a file, in UTF-8; what is there is replaced, at once. Raises `StorageError`."""
        target = path_of(path)
        beside = f"{target}.{os.getpid()}.tmp"
        try:
            with open(beside, "w", encoding="utf-8") as file:
                file.write(self.html)
            os.replace(beside, target)
        except OSError as error:
            if os.path.lexists(beside):
                os.unlink(beside)
            raise os_fault(error, "cannot write the page", target) from error

    def _repr_html_(self) -> str:
        """The page in a notebook, in a frame of its own, which has no part in the notebook's."""
        inside = html.escape(self.html)
        return (
            f'<iframe sandbox="allow-scripts" title="{html.escape(self.title)}" srcdoc="{inside}" '
            f'style="width:100%;height:{FRAME}px;border:0"></iframe>'
        )


def page_of(title: str, data: Mapping[str, Any]) -> HtmlReport:
    """The page of some data, whose "kind" says what they are of."""
    title = cut(title)
    scripts = [*map(_asset, LIBRARIES), "\n".join(map(_asset, OWN))]
    policy = "; ".join(
        ("default-src 'none'", f"script-src {' '.join(map(_hash, scripts))}", "style-src 'unsafe-inline'",
         "img-src data:", "base-uri 'none'", "form-action 'none'")
    )  # fmt: skip
    text = Template(_asset("page.html")).substitute(
        title=html.escape(title),
        policy=policy,
        style=_asset("page.css"),
        version=__version__,
        data=as_json({"title": title, **data}),
        scripts="\n".join(f"<script>{script}</script>" for script in scripts),
    )
    return HtmlReport(title, text, data["kind"], len(data.get("damage", ())))


@cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", *name.split("/")).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
