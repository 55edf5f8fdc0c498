"""The manual as a site: built strictly, made from the code where it says so, read in a browser without the internet."""

import os
import re
import subprocess
import sys
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import typer
from conftest import PATIENCE

from idennet_core import config
from orchestrator import rows
from orchestrator.cli.app import app
from orchestrator.study import Study

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built manual; whatever mkdocs warns of fails it."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return folder


class _Page(HTMLParser):
    """The text of a page's headings and cells, and all that it loads."""

    def __init__(self, path):
        super().__init__()
        self.texts, self.loaded, self.inside = [], [], None
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("h1", "h2", "h3", "td"):
            self.inside = tag
            self.texts.append("")
        if tag in ("script", "img", "iframe", "source"):
            self.loaded.append(given.get("src"))
        if tag == "link" and given.get("rel") != "canonical":
            self.loaded.append(given.get("href"))

    def handle_endtag(self, tag):
        if tag == self.inside:
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.texts[-1] += data


def names_of(command, name="idenctl"):
    yield name
    for inner in getattr(command, "commands", {}).values():
        yield from names_of(inner, f"{name} {inner.name}")


def test_the_reference_has_every_command_key_setting_and_column(site):
    texts = {
        page.stem: {text.strip("¶ \n") for text in _Page(page).texts} for page in (site / "reference").glob("*.html")
    }
    assert not [text for page in texts.values() for text in page if {"\\", "&"} & {*text}]  # signs, not their codes
    assert set(names_of(typer.main.get_command(app))) <= texts["commands"]
    assert {*Study.model_fields, *config.HEAD_DEFAULTS} <= texts["study-file"]
    assert {name for table in rows.EMPTY.values() for name in table.schema.names} <= texts["tables"]


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "made from the code:" not in text
        for target in _Page(page).loaded:
            assert target is None or not re.match(r"\w+:|//", target), f"{page}: {target}"
    sheets = list((site / "assets/stylesheets").glob("*.css"))
    assert sheets
    for sheet in sheets:
        assert not re.search(r"url\([\"']?(https?:|//)", sheet.read_text(encoding="utf-8"))


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def served(site):
    """The address of the site on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def opened(browser, served):
    """Opens a page as wide as asked; fails where it complains, or asks for anything but the site."""
    said = []
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda sent: said.append(sent.url) if not sent.url.startswith(served) else None)

    def open_(path, width=1300, scheme="light"):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        page.goto(f"{served}/{path}")
        return page

    yield open_
    page.close()
    assert said == []


@pytest.mark.parametrize(("width", "scheme"), [(1300, "light"), (360, "dark")])
def test_every_page_shows_its_pictures_and_scrolls_down_alone(opened, site, width, scheme):
    pictures = 0
    for path in sorted(site.rglob("*.html")):
        page = opened(path.relative_to(site), width, scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
        shown = page.locator("article img").evaluate_all("all => all.map(img => img.complete && img.naturalWidth > 0)")
        assert all(shown), path
        pictures += len(shown)
    assert pictures > 5


def test_formulae_are_drawn_by_the_browser_itself(opened):
    page = opened("explanation/statistics.html")
    boxes = [formula.bounding_box() for formula in page.locator(".formula math").all()]
    assert len(boxes) == 4
    assert all(box["height"] > 20 and box["width"] > 100 for box in boxes)


def test_searching_finds_a_setting_without_the_internet(opened):
    from playwright.sync_api import expect

    page = opened("index.html")
    page.locator(".md-search__input").click()
    page.keyboard.type("bank_seed")
    first = page.locator(".md-search-result__item a").first  # of each part of the word, until all of it is typed
    expect(first).to_have_attribute("href", re.compile(r"reference/study-file\.html"), timeout=PATIENCE)
