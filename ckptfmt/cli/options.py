"""Options that several commands share."""

from __future__ import annotations

import click

follow_links = click.option(
    "--follow-links",
    is_flag=True,
    help="Read through links in a checkpoint's folder, into it and into the blobs of the Hugging Face cache around it.",
)
