"""`ckptfmt view`: look at checkpoints in a browser."""

from __future__ import annotations

import contextlib
import webbrowser

import click
from rich.text import Text

from ..errors import fault, os_fault
from ..viewing import View, page
from . import options
from .console import console, print_json
from .text import visible


@click.command(
    epilog="""\b
Examples:
  ckptfmt view model.ckpt
  ckptfmt view model.safetensors                    # also .gguf; other formats are converted first
  ckptfmt view runs/7                               # every checkpoint of a run, with its metrics
  ckptfmt view s3://bucket/model.ckpt
  ckptfmt view --no-browser --port 8000 model.ckpt  # on another machine: ssh -L 8000:127.0.0.1:8000 there
  ckptfmt view --page viewer.html                   # the page alone: drop files on it, or put it on a web server

The page shows the tree, and of a tensor numbers, a heat map and a histogram of any slice, and two of them beside each
other. Of checkpoints of this format every byte that is shown is checked against its digest. Nothing is sent anywhere:
the server is on 127.0.0.1, gives only what is at PATH, changes nothing, and wants the word in the URL that it prints.

The object of --json has: path and url, or page, the file that was written. It is one line, which is written as soon as
the server answers.

Exit codes: 0 ended by Ctrl-C, or the page is written, 2 anything else.
""",
)
@click.argument("path", required=False, type=click.Path())
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1 [default: a free one].")
@click.option("--no-browser", is_flag=True, help="Open no browser: the URL is printed in any case.")
@click.option(
    "--page", "page_file", metavar="FILE.html", type=click.Path(), help="Write the page, which needs no server."
)
@options.follow_links
@options.as_json
def view(
    path: str | None, port: int, no_browser: bool, page_file: str | None, follow_links: bool, as_json: bool
) -> None:
    """Look at the checkpoint, or at those in the folder, at PATH in a browser, until Ctrl-C ends it."""
    if (path is None) == (page_file is None):
        raise click.UsageError("Give PATH, or --page FILE.html, and not both.")
    if page_file is not None:
        _write(page_file)
        if as_json:
            print_json({"page": page_file})
        return
    assert path is not None
    opened = View(path, port=port, follow_links=follow_links)
    if as_json:
        print_json({"path": path, "url": opened.url})
    else:
        out = console()
        out.print(Text.assemble(f"{visible(path)} is shown at ", (opened.url, "bold")))
        out.print(Text("Ctrl-C ends it."))
    if not no_browser:
        webbrowser.open(opened.url)
    with contextlib.suppress(KeyboardInterrupt):
        opened.serve()


def _write(path: str) -> None:
    """The page, where nothing is yet."""
    try:
        with open(path, "xb") as file:
            file.write(page())
    except FileExistsError:
        raise fault("exists", "there is something already", path=path, advice="Choose another path") from None
    except OSError as error:
        raise os_fault(error, "cannot write the page", path) from error
