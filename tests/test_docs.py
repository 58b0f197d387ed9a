"""The documents: what they show runs, what they link to is there, and what they call commands are commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ckptfmt.cli.overview import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "adapters/README.md", ROOT / "conformance/README.md", *ROOT.glob("docs/*.md")]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one program, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    exec(compile("\n".join(BLOCK.findall((ROOT / "docs/guide.md").read_text())), "guide.md", "exec"), {})
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://", "#")):
            assert (page.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page: Path) -> None:
    code = re.findall(r"`([^`\n]+)`|^\$ (.*)$", page.read_text(), re.MULTILINE)
    for inline, line in code:
        for command in re.findall(r"(?<![\w/.])ckptfmt ([a-z]+)\b", inline or line):
            assert command in COMMANDS, command
