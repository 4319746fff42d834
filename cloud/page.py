"""Pages of results: one HTML file each that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import matplotlib

from ruyicam.cloud.files import write_whole

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;font-size:14px;margin:1rem 0}
td,th{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:right;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}img{max-width:100%}
@media(prefers-color-scheme:dark){body{background:#161616;color:#e6e6e6}td,th{border-color:#444}img{background:#fff}}
"""


def picture(figure) -> str:
    """The figure as an SVG inside HTML; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    plt.close(figure)
    return f'<img src="data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}" alt="">'


def write_page(path: Path, title: str, parts: list[str]) -> None:
    """An HTML file of parts that are HTML already. OSError if it cannot be written."""
    write_whole(
        path,
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style><h1>{html.escape(title)}</h1>{''.join(parts)}</html>\n",
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table of texts."""
    cells = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>" for row in rows)
    return "<table><tr>" + "".join(f"<th>{html.escape(h)}</th>" for h in head) + f"</tr>{cells}</table>"
