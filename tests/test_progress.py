"""The bar: bytes, rate and the time that is left, on a terminal and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.text import Text

import ckptfmt
from ckptfmt.cli.app import cli


def test_it_shows_bytes_rate_and_time_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with ckptfmt.progress_bar("[saving]") as bar:
        for done in range(0, 11_000_000, 1_000_000):
            bar(done, 10_000_000)
    shown = Text.from_ansi(capsys.readouterr().err).plain
    assert "[saving]" in shown, "a title is no markup"
    assert "10.0/10.0 MB" in shown
    assert "/s" in shown
    assert "00:00" in shown


def test_it_shows_nothing_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with ckptfmt.progress_bar("saving") as bar:
        bar(1, 2)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["verify", "stats"])
def test_commands_keep_pipes_clean(tmp_path: Path, command: str) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"a": np.ones(9)}, durable=False)
    result = CliRunner().invoke(cli, [command, str(tmp_path / "x.ckpt")])
    assert (result.exit_code, result.stderr) == (0, "")
