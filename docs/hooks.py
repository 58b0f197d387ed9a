"""What the site has beside docs/: documents of other folders, and links that lead to GitHub where a file is no page.

mkdocs calls the functions whose names begin with `on_`. Documents are written for GitHub, so some things are put right
for Python-Markdown: what continues an item of a list is indented by four, a link is one within the site, and a
statement of the specification, `[READ-001]`, is a link to where it stands.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/ckptfmt/ckptfmt"
ELSEWHERE = ("*.md", "conformance/*.md", "benchmarks/*.md", "benchmarks/results/*.md", "findings/*.md", "adapters/*.md")
HOME = "README.md"  # index.md is the home of the site
LINK = re.compile(r"(\]\(|^\[[^\]]+\]: )([^)\s#]*)(#[^)\s]*)?", re.MULTILINE)
FENCE = re.compile(r"^ *```")
ITEM = re.compile(r"^( *)([-*]|\d+\.) ")
STATEMENT = r"\[([A-Z]{2,5}-\d{3})\](?!\()"
SETUP = re.compile(r"^<!-- setup\n.*?^-->\n+", re.DOTALL | re.MULTILINE)  # what only the tests run: tests/pages.py
DEFINITION = re.compile(r"^(\s*- )(`\[([A-Z]{2,5}-\d{3})\]`)", re.MULTILINE)


def elsewhere() -> dict[str, Path]:
    """The documents of other folders, by their paths from the root of the repository."""
    found = {str(path.relative_to(ROOT)): path for pattern in ELSEWHERE for path in sorted(ROOT.glob(pattern))}
    return {name: path for name, path in found.items() if name != HOME}


def on_config(config: Any) -> Any:
    config.nav = expanded(config.nav)
    config.markdown_extensions.append(Statements())
    return config


def expanded(nav: list[Any]) -> list[Any]:
    """With the files that there are in the place of a pattern."""
    there = sorted({*elsewhere(), *(str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md"))})
    out: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            out += [{title: expanded(below) if isinstance(below, list) else below} for title, below in entry.items()]
        elif "*" in entry:
            out += [name for name in there if Path(name).match(entry) and name.count("/") == entry.count("/")]
        else:
            out.append(entry)
    return out


def on_files(files: Files, config: Any) -> Files:
    for name, path in elsewhere().items():
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    source = page.file.src_uri
    folder = posixpath.dirname(source if page.file.generated_by else f"docs/{source}")

    def moved(link: re.Match[str]) -> str:
        before, target, anchor = link[1], link[2], link[3] or ""
        if target.startswith(f"{REPOSITORY}/blob/main/"):
            whole = target.removeprefix(f"{REPOSITORY}/blob/main/")
        elif not target or ":" in target:
            return link[0]
        else:
            whole = posixpath.normpath(posixpath.join(folder, target))
        name = whole.removeprefix("docs/")
        if files.get_file_from_path(name) is not None:
            return f"{before}{posixpath.relpath(name, posixpath.dirname(source) or '.')}{anchor}"
        return f"{before}{REPOSITORY}/{'tree' if (ROOT / whole).is_dir() else 'blob'}/main/{whole}{anchor}"

    markdown = SETUP.sub("", markdown)
    for statement in DEFINITION.finditer(markdown):
        config.plugins["autorefs"].register_anchor(page, statement[3])
    return DEFINITION.sub(r'\1<a id="\3"></a>\2', LINK.sub(moved, indented(markdown)))


def indented(markdown: str) -> str:
    """The lines that continue an item of a list, by four, as Python-Markdown wants them; code stays as it is."""
    out, code, inside = [], False, False
    for line in markdown.split("\n"):
        code ^= bool(FENCE.match(line))
        if code or FENCE.match(line):
            out.append(line)
            continue
        item = ITEM.match(line)
        inside = bool(item) or (inside and (not line or line.startswith(" ")))
        out.append("    " + line.lstrip(" ") if inside and not item and line else line)
    return "\n".join(out)


class Statements(Extension):  # type: ignore[misc]
    """`[READ-001]`, in documents and docstrings, leads to the statement."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802
        md.inlinePatterns.register(Statement(STATEMENT, md), "statements", 175)  # before references of Markdown


class Statement(InlineProcessor):  # type: ignore[misc]
    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element, int, int]:  # noqa: N802
        element = Element("autoref", {"identifier": m[1], "optional": ""})
        element.text = f"[{m[1]}]"
        return element, m.start(0), m.end(0)
