"""Lays out the site's pages in build/docs: those of docs/ as they are, the others under names of their own.

Links between documents are made to lead where the pages lie then; those to other files become plain text, and one
that leads nowhere ends it with an error.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "build" / "docs"
ELSEWHERE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture/index.md",
    "THREATS.md": "threats.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "examples/README.md": "examples.md",
    "benchmarks/peers/README.md": "benchmarks/peers.md",
    "benchmarks/networks/README.md": "benchmarks/networks.md",
}
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")


def pages() -> dict[Path, Path]:
    """Source -> page, both absolute."""
    found = {ROOT / source: TARGET / page for source, page in ELSEWHERE.items()}
    docs = ROOT / "docs"
    return found | {path: TARGET / path.relative_to(docs) for path in sorted(docs.rglob("*.md"))}


def moved(text: str, source: Path, every: dict[Path, Path], lost: list[str]) -> str:
    """The text with its links as they are from its page."""

    def lead(link: re.Match[str]) -> str:
        text, place, fragment = link.group(1), link.group(2), link.group(3) or ""
        if "://" in place:
            return link.group()
        target = (source.parent / place).resolve()
        page = every.get(target / "README.md" if target.is_dir() else target)
        if page is None and target.exists():  # a program's text is no page
            return text
        if page is None:
            lost.append(f"{source.relative_to(ROOT)}: {place}")
            return link.group()
        return f"[{text}]({os.path.relpath(page, every[source].parent)}{fragment})"

    return LINK.sub(lead, text)


def main() -> None:
    every, lost = pages(), []
    shutil.rmtree(TARGET, ignore_errors=True)
    for source, page in every.items():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(moved(source.read_text(), source, every, lost))
    if lost:
        sys.exit("links that lead to no page:\n" + "\n".join(lost))


if __name__ == "__main__":
    main()
