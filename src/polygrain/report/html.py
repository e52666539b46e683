"""The report: one HTML file that needs nothing else."""

import re
from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

STYLE, EXPLORER_STYLE = (Path(__file__).with_name(name) for name in ("page.css", "explorer.css"))
# the page cannot load anything, whatever is in it
POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


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


def explorer_page(
    title: str,
    subtitle: str,
    *,
    first: Sequence[Section],
    beside: Sequence[Section],
    last: Sequence[Section],
    inspector: str,
    script: str,
) -> str:
    """A document with a table of contents, and a column that stays in sight beside the sections in the middle."""
    links = "".join(f"<a href='#{anchor(section)}'>{escape(section.title)}</a>" for section in (*first, *beside, *last))
    above, middle, below = ("\n".join(map(_section, sections)) for sections in (first, beside, last))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<title>{escape(title)}</title>
<style>
{STYLE.read_text()}{EXPLORER_STYLE.read_text()}</style>
</head>
<body class=explorer>
<header>
<h1>{escape(title)}</h1>
<p>{escape(subtitle)}</p>
</header>
<nav aria-label="Contents">{links}</nav>
<main>
{above}
<div class=beside>
<div>
{middle}
</div>
{inspector}
</div>
{below}
</main>
<footer>Written by polygrain {version("polygrain")}. This file is complete: it loads nothing from elsewhere.</footer>
{script}
</body>
</html>
"""


def anchor(section: Section) -> str:
    """The section's place in the address of the page."""
    return "-".join(re.findall(r"[a-z0-9]+", section.title.lower()))


def _section(section: Section) -> str:
    about = f"<p class=about>{escape(section.about)}</p>\n" if section.about else ""
    return f"<section id='{anchor(section)}'>\n<h2>{escape(section.title)}</h2>\n{about}{section.body}\n</section>"


def write_report(path: str | Path, *, title: str, subtitle: str, sections: Iterable[Section]) -> Path:
    """Writes the report and returns its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(title, subtitle, sections), encoding="utf-8")
    return path
