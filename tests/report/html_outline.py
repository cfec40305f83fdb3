"""What a test reads of a page: its elements, and everything that a browser would fetch."""

import html.parser
import re
from html import unescape

EVIL = "<script>alert(1)</script>&\"'$x_1$"


class Outline(html.parser.HTMLParser):
    """Balanced elements, their ids, and every attribute that a browser would fetch."""

    VOID = frozenset({"meta", "link", "img", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "data", "srcset", "action"):
                self.fetched.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str) -> Outline:
    """It is well formed, fetches nothing, runs nothing, and adapts to dark mode."""
    outline = Outline(text)
    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))
    assert all(target.startswith("#") for target in outline.fetched)
    assert not {"script", "link", "iframe", "img", "object"} & set(outline.tags)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(\s*[\"']?([^)]*)\)", text))
    namespaces = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\s\"'<)]+", text)) <= namespaces
    assert "prefers-color-scheme: dark" in text
    return outline


def check_colours(svg: str, colours: set[str]) -> None:
    """Every colour is one of the page's own variables, which dark mode changes."""
    assert not re.findall(r"#[0-9a-f]{6}\b", re.sub(r'(?:id="|href="#|url\(#)[^")]*', "", svg))
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= colours


def text_of(page: str) -> str:
    """What stands on the page, without its elements, styles and drawings' coordinates."""
    return " ".join(unescape(re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", page, flags=re.DOTALL)).split())
