"""The report: one HTML file that needs nothing else."""

from collections.abc import Iterable
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

STYLE = Path(__file__).with_name("page.css")


class Section(NamedTuple):
    """One part of a report.

    `about` and `title` are text, `body` is HTML.
    """

    title: str
    about: str
    body: str


def page(title: str, subtitle: str, sections: Iterable[Section]) -> str:
    """The whole document; style and pictures are inside, nothing is fetched."""
    parts = "\n".join(map(_section, sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{STYLE.read_text()}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p>{escape(subtitle)}</p>
</header>
<main>
{parts}
</main>
<footer>Written by polygrain {version("polygrain")}. This file is complete: it loads nothing from elsewhere.</footer>
</body>
</html>
"""


def _section(section: Section) -> str:
    about = f"<p class=about>{escape(section.about)}</p>\n" if section.about else ""
    return f"<section>\n<h2>{escape(section.title)}</h2>\n{about}{section.body}\n</section>"


def write_report(path: str | Path, *, title: str, subtitle: str, sections: Iterable[Section]) -> Path:
    """Writes the report and returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(title, subtitle, sections), encoding="utf-8")
    return path
