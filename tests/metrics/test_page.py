"""Pages: nothing from outside acts, nothing is fetched, and what is shown is what was given."""

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastface.metrics import page

HOSTILE = "<script>alert('1')</script>\"&'><img src=http://example.org/x onerror=alert(1)>"


class Reader(HTMLParser):
    """What a browser would see: tags with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "wbr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def everything(text: str) -> list[page.Html]:
    face = page.Face("data:image/jpeg;base64,AA==", text, "bad")
    return [
        page.section(text, page.paragraph(text, page.strong(text)), page.heading(text)),
        page.table([text, "n"], [[text, 3], [text, 4]], caption=text),
        page.tiles([(text, text)]),
        page.findings([page.finding(text, [face])]),
        page.folded(text, text),
        page.picture("data:image/png;base64,AA==", text),
    ]


@pytest.mark.parametrize(
    "text", [HOSTILE, 'x\'" onload="a', "</style><script>", "\u202eevil \udcff \x00 \x1b[31m", "a\x85b"]
)
def test_strings_from_outside_are_only_ever_text(tmp_path: Path, text: str) -> None:
    page.write_page(tmp_path / "a.html", text, *everything(text), lead=text)
    page.write_page(tmp_path / "b.html", "plain", *everything("plain"), lead="plain")
    hostile, plain = (Reader((tmp_path / name).read_bytes().decode("utf-8")) for name in ("a.html", "b.html"))
    assert hostile.open == plain.open == []
    kinds = [[tag for tag, _ in reader.tags if tag not in {"bdi", "wbr"}] for reader in (hostile, plain)]
    assert kinds[0] == kinds[1]
    allowed = {"id", "class", "href", "src", "alt", "loading", "lang", "charset", "http-equiv", "content", "name"}
    for tag, attributes in hostile.tags:
        assert attributes.keys() <= allowed, tag
        assert (attributes.get("src") or "data:").startswith("data:")
        assert (attributes.get("href") or "#").startswith("#")
    shown = text.replace("\udcff", "\\udcff").replace("\x00", "\\x00").replace("\x1b", "\\x1b").replace("\x85", "\\x85")
    assert hostile.text.count(shown) == plain.text.count("plain") > 15


def test_markup_stays_and_pieces_nest() -> None:
    inner = page.table(["a"], [["<"]])
    assert "&lt;" in inner
    assert inner in page.section("x", inner)
    assert page.escape(page.escape("&")) == "&amp;"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234567, "1,234,567"),
        (0.12345, "0.123"),
        (np.float32(0.5), "0.500"),
        (12345.6, "12,346"),
        ("07", "07"),
        (True, "True"),
    ],
)
def test_numbers_are_written_one_way(value: object, shown: str) -> None:
    text = page.table(["n"], [[value]])
    assert f">{shown}</td>" in text
    assert ('class="number"' in text) == (value is not True)


def test_pictures_come_back_as_they_were() -> None:
    pixels = np.zeros((60, 200, 3), np.uint8)
    pixels[:, 100:] = (250, 10, 10)
    kind, data = page.jpeg_uri(pixels, side=100).split(",")
    assert kind == "data:image/jpeg;base64"
    seen = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    assert seen.shape == (30, 100, 3)
    assert np.abs(seen[:, 60:].astype(int) - (250, 10, 10)).max() < 12
    assert seen[:, :40].max() < 12


def test_a_file_becomes_a_picture(tmp_path: Path) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    kind, data = page.file_uri(tmp_path / "a.png").split(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == (tmp_path / "a.png").read_bytes()


def test_a_page_names_its_sections_and_allows_nothing_else(tmp_path: Path) -> None:
    page.write_page(tmp_path / "p.html", "T", page.section("One & two", "a"), page.section("Three", "b"))
    reader = Reader((tmp_path / "p.html").read_text(encoding="utf-8"))
    links = [attributes["href"] for tag, attributes in reader.tags if tag == "a"]
    assert links == ["#one-two", "#three"]
    assert [f"#{attributes['id']}" for tag, attributes in reader.tags if tag == "section"] == links
    policy = [attributes["content"] for tag, attributes in reader.tags if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not any(tag in {"script", "link", "iframe", "object"} for tag, _ in reader.tags)
