"""Text, tables and pictures -> one HTML page that needs nothing beside it: no script, no file, no server.

Pieces are functions of what they show; `write_page` puts them together. Whatever is not Html already is escaped.
"""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastface.durable import write_durably

QUALITY = 82  # of inlined JPEGs: a face of 112 px takes about 3 kB

# Nothing may be fetched or run, even by a piece that slipped through: CSP level 3, <meta http-equiv>.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
CSS = """
:root{--ink:#22272e;--soft:#5d6672;--line:#d9dde2;--back:#f5f6f8;--card:#fff;--accent:#0b5fa5;--bad:#b3342d;
--good:#1a8a5a}
@media (prefers-color-scheme:dark){:root{--ink:#e4e7eb;--soft:#9aa4b0;--line:#39414b;--back:#15191e;--card:#1e242b;
--accent:#6db3ee;--bad:#ee7a72;--good:#5fc796}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--back);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:1.7rem;line-height:1.2;margin:.4em 0 .2em}h2{font-size:1.2rem;margin:0 0 .5em}h3{font-size:1rem;
margin:1.2em 0 .4em}
p{margin:.5em 0;max-width:76ch}.soft,figcaption,.tile span{color:var(--soft)}a{color:var(--accent)}
nav{display:flex;flex-wrap:wrap;gap:6px 14px;margin:14px 0;font-size:.92rem}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:16px;margin:16px 0;
overflow:hidden}
.tiles{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:10px 14px;min-width:120px;
flex:1 1 120px}
.tile b{display:block;font-size:1.4rem;line-height:1.25}.tile span{font-size:.85rem}
.scroll{overflow-x:auto;margin:.6em 0}table{border-collapse:collapse;font-size:.9rem;min-width:40%}
caption{text-align:left;color:var(--soft);padding:2px 0 6px}
th,td{padding:5px 12px 5px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);
overflow-wrap:break-word}
th{font-weight:600;white-space:nowrap;overflow-wrap:normal}.number{text-align:right;white-space:nowrap;
overflow-wrap:normal;
font-variant-numeric:tabular-nums}
.findings{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:0 18px}
.finding{padding:10px 0;border-top:1px solid var(--line);min-width:0}.finding>p{margin:0 0 6px}.wide{grid-column:1/-1}
.strip{display:flex;gap:8px;overflow-x:auto;padding-bottom:4px}
figure{margin:0;flex:0 0 auto;max-width:100%}figure img{display:block;max-width:100%;border-radius:6px}
.strip figure{width:112px}.strip img{width:112px;height:112px;object-fit:contain;background:var(--back);
border:2px solid transparent}
.strip .bad img{border-color:var(--bad)}.strip .good img{border-color:var(--good)}
figcaption{font-size:.74rem;line-height:1.3;overflow-wrap:anywhere;margin-top:3px}
details{margin:.6em 0}summary{cursor:pointer;color:var(--accent)}code,pre{font-size:.88em;overflow-wrap:anywhere;
white-space:pre-wrap}
@media (max-width:560px){main{padding:10px 8px 40px}section{padding:12px 10px}.strip figure{width:88px}
.strip img{width:88px;height:88px}}
@media print{body{background:#fff}section{break-inside:avoid-page;border:0;padding:0}}
"""


class Html(str):
    """Markup that may stand in a page as it is."""

    __slots__ = ()


class Face(NamedTuple):
    """One picture of a strip."""

    source: str  # a data URI, see `jpeg_uri`; "" where there is no picture
    caption: str = ""
    mark: str = ""  # "bad" or "good": the colour of its frame


def escape(value: Any) -> Html:
    """Turn a value into markup that shows it: Html stays, all else is text, in a direction of its own.

    Bytes of names that are no UTF-8 (surrogates) and control characters become backslash escapes.
    """
    if isinstance(value, Html):
        return value
    text = str(value).encode("utf-8", "backslashreplace").decode()
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)
    quoted = html.escape(text, quote=True)
    return Html(quoted if text.isascii() else f"<bdi>{quoted}</bdi>")


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Put pieces one after another, with markup between them."""
    return Html(between.join(map(escape, parts)))


def paragraph(*parts: Any, soft: bool = False) -> Html:
    return Html(f"<p{_class('soft' if soft else '')}>{join(parts)}</p>")


def strong(text: Any) -> Html:
    return Html(f"<b>{escape(text)}</b>")


def section(title: str, *parts: Any) -> Html:
    """Make a card with a heading; `write_page` lists them at its top."""
    return Html(f'<section id="{anchor(title)}"><h2>{escape(title)}</h2>{join(parts)}</section>')


def heading(text: str) -> Html:
    return Html(f"<h3>{escape(text)}</h3>")


def folded(title: str, *parts: Any) -> Html:
    """Make a part that opens at a click."""
    return Html(f"<details><summary>{escape(title)}</summary>{join(parts)}</details>")


def tiles(figures: Iterable[tuple[Any, str]]) -> Html:
    """Show (value, what it is) large, side by side."""
    shown = [f'<div class="tile"><b>{escape(_shown(v))}</b><span>{escape(what)}</span></div>' for v, what in figures]
    return Html(f'<div class="tiles">{"".join(shown)}</div>')


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], caption: str = "") -> Html:
    """Make a table that scrolls sideways where it is too wide; columns of numbers are set to the right."""
    listed = [list(row) for row in rows]
    assert all(len(row) == len(header) for row in listed), "a row does not fit the header"
    right = [bool(listed) and all(_is_number(row[k]) for row in listed) for k in range(len(header))]
    head = "".join(f"<th{_class('number' if right[k] else '')}>{escape(name)}</th>" for k, name in enumerate(header))
    lines = [
        "".join(f"<td{_class('number' if right[k] else '')}>{escape(_shown(v))}</td>" for k, v in enumerate(row))
        for row in listed
    ]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(f'<div class="scroll"><table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>')


def strip(faces: Iterable[Face]) -> Html:
    """Set small pictures side by side, with what is said of each below it."""
    return Html(f'<div class="strip">{join(_figure(face) for face in faces)}</div>')


def finding(text: Any, faces: Iterable[Face]) -> Html:
    """Say something, and show it by a strip of faces."""
    shown = list(faces)
    name = "finding wide" if len(shown) > 2 else "finding"
    return Html(f'<div class="{name}"><p>{escape(text)}</p>{strip(shown)}</div>')


def findings(each: Iterable[Html]) -> Html:
    """Set findings beside one another where the screen is wide and they are short."""
    return Html(f'<div class="findings">{join(each)}</div>')


def picture(source: str, caption: str = "") -> Html:
    """Show one picture as wide as the page, such as a PNG by `file_uri`."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(f'<figure><img src="{escape(source)}" alt="{escape(_plain(caption))}">{below}</figure>')


def jpeg_uri(pixels: np.ndarray, side: int = 112) -> str:
    """Encode uint8 [H, W, 3] as a data URI, shrunk to at most `side` px."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def file_uri(path: str | Path) -> str:
    """Read a PNG or JPEG file as a data URI."""
    data = Path(path).read_bytes()
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def write_page(path: str | Path, title: str, *parts: Any, lead: str = "") -> None:
    """Write a page of parts, whole or not at all; its sections are listed below the title."""
    body = join(parts)
    titles = re.findall(r'<section id="([^"]*)"><h2>(.*?)</h2>', body)
    links = "".join(f'<a href="#{name}">{text}</a>' for name, text in titles)
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{_plain(title)}</title><style>{CSS}</style></head>\n<body><main><h1>{escape(title)}</h1>"
        f"{paragraph(lead, soft=True) if lead else ''}{f'<nav>{links}</nav>' if titles else ''}\n"
        f"{body}</main></body></html>\n"
    )
    write_durably(Path(path), page.encode("utf-8"))


def anchor(title: str) -> str:
    """Make the name by which a section is linked to."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def _figure(face: Face) -> Html:
    image = f'<img src="{escape(face.source)}" alt="" loading="lazy">' if face.source else ""
    caption = join(re.split(r"(?<=[/_])", face.caption), "<wbr>")  # paths break where they should
    return Html(f"<figure{_class(face.mark)}>{image}<figcaption>{caption}</figcaption></figure>")


def _plain(text: Any) -> str:
    """Escape without markup, for attributes and titles."""
    return re.sub(r"</?bdi>", "", escape(str(text)))


def _shown(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int | np.integer) and not isinstance(value, bool) else value


def _is_number(value: Any) -> bool:
    numeric = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return numeric or (isinstance(value, str) and re.fullmatch(r"[-+]?[\d,]*\.?\d+(e-?\d+)?( ?%)?", value) is not None)


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
