"""Hooks of mkdocs: pages that lie outside docs/, or are no Markdown, join the site with their links put right.

README.md becomes the first page, CHANGELOG.md and benchmarks/*.md pages of their own, and the notebook, as it was last
executed, a page as well. Everywhere else these links are as GitHub wants them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
NOTEBOOK = "first_sweep"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the benchmarks that there are, by their headings."""
    (entry,) = [entry for entry in config.nav or [] if "Benchmarks" in entry]
    names = [f"benchmarks/{path.name}" for path in _benchmarks()]
    entry["Benchmarks"] = [{_text(name).partition("\n")[0].strip("# ").replace("`", ""): name} for name in names]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere."""
    texts = {"index.md": _text("README.md"), "changes.md": _text("CHANGELOG.md"), f"{NOTEBOOK}.md": notebook_page()}
    texts["CITATION.cff"] = _text("CITATION.cff")
    texts |= {f"benchmarks/{path.name}": _text(f"benchmarks/{path.name}") for path in _benchmarks()}
    for name, text in texts.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn links between folders of the repository into links between pages of the site."""
    name = page.file.src_uri
    if name in ("index.md", "changes.md"):
        markdown = markdown.replace("](docs/", "](")
    elif name.startswith("benchmarks/"):
        markdown = markdown.replace("](../docs/", "](../")
    else:
        markdown = markdown.replace("](../benchmarks/", "](benchmarks/")
    return markdown.replace(f"{NOTEBOOK}.ipynb)", f"{NOTEBOOK}.md)")


def notebook_page() -> str:
    """The notebook as Markdown: text, code, and what it printed or showed."""
    cells = json.loads(_text(f"docs/{NOTEBOOK}.ipynb"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        parts += [shown for output in cell.get("outputs", []) for shown in _shown(output)]
    return "\n\n".join(parts)


def _shown(output: dict[str, Any]) -> Iterator[str]:
    data = output.get("data", {})
    if "text/html" in data:
        table = re.sub(r"\n\s*", "\n", "".join(data["text/html"]))
        yield f'<div style="overflow-x: auto">{table}</div>'
    elif "image/png" in data:
        yield f'<img alt="figure" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    else:
        text = "".join(output.get("text", data.get("text/plain", "")))
        if text.strip():
            yield f"```\n{text.rstrip()}\n```"


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _benchmarks() -> list[Path]:
    return sorted((ROOT / "benchmarks").glob("*.md"))
