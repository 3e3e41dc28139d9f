"""What the site has beside the pages of this folder.

The README is its front page, and the documents for developers are pages of it,
though their sources stand elsewhere in the checkout.  So links are written as
they work in the checkout, and turned here into those of the site; a file that
is no page (a unit, an example of a configuration) is put beside the pages.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
#: Files of the checkout, and what they are on the site.
PAGES = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "PROTOCOL.md": "protocol.md",
    "CHANGELOG.md": "changes.md",
    "perf/README.md": "performance.md",
}
_LINK = re.compile(r"\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages whose sources are elsewhere, and the files that any page links to."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
    for source, page in PAGES.items():
        texts[ROOT / source] = text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=for_site(text, Path(source).parent)))
    for path, text in texts.items():
        for match in _LINK.finditer(text):
            target = in_checkout(match[2], path.parent.relative_to(ROOT))
            if is_loose(target) and files.get_file_from_path(target) is None:
                files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of the pages of this folder."""
    return markdown if page.file.generated_by else for_site(markdown, Path("docs"))


def for_site(text: str, folder: Path) -> str:
    """Links as they have to be on the site; a folder of the checkout becomes its name."""

    def turned(match: re.Match[str]) -> str:
        words, link, anchor = match[1], match[2], match[3] or ""
        target = in_checkout(link, folder)
        if target in PAGES:
            return f"[{words}]({PAGES[target]}{anchor})"
        if target.startswith("docs/"):
            return f"[{words}]({target.removeprefix('docs/')}{anchor})"
        if is_loose(target):
            return f"[{words}]({target})"
        return words if (ROOT / target).exists() else match[0]

    return _LINK.sub(turned, text)


def in_checkout(link: str, folder: Path) -> str:
    """A relative link's target, from the root of the checkout."""
    return os.path.normpath(folder / link)


def is_loose(target: str) -> bool:
    """Whether it is a file that has to be put beside the pages."""
    return target not in PAGES and not target.startswith(("docs/", "..")) and (ROOT / target).is_file()
