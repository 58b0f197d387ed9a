"""`ckptfmt completion`: what makes a shell complete commands, options and the names of files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="""\b
Examples:
  echo 'eval "$(ckptfmt completion bash)"' >> ~/.bashrc
  echo 'eval "$(ckptfmt completion zsh)"' >> ~/.zshrc
  ckptfmt completion fish > ~/.config/fish/completions/ckptfmt.fish

It completes commands, options and their values, and the names of files and folders. A new shell has it.
"""
)
@click.argument("shell", metavar="SHELL", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL (bash, zsh or fish) complete commands and file names."""
    kind = get_completion_class(shell)
    assert kind is not None, "click has these shells"
    click.echo(kind(context.find_root().command, {}, "ckptfmt", "_CKPTFMT_COMPLETE").source())
