"""The page: one file of HTML without a request to anywhere, as `viewer/build.mjs` makes it."""

from __future__ import annotations

from importlib.resources import files

NAME = "page.html"
PLACE = b"<!-- index -->"  # where a server says that it has one


def page(*, index: str | None = None) -> bytes:
    """Return the page, UTF-8; `index`: the URL of a list of what there is to look at, relative to the page's own."""
    data = files(__package__).joinpath(NAME).read_bytes()
    if index is None:
        return data
    return data.replace(PLACE, f'<meta name="ckptfmt-index" content="{index}">'.encode(), 1)
