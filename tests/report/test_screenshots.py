"""The report beside reference pictures, block by block; ``make screenshots`` renews them.

The text is set in the font that Matplotlib contains, so that lines break alike on every machine.
Pictures are compared at a quarter of their size, each block from its own top: another rasterizer
of fonts passes, and a missing, moved or recolored part does not.
"""

import base64
import io
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import chromium
import numpy as np
import pytest
from long_parameters import every_third, only

page = pytest.importorskip("edgeattn.report.page", reason="Jinja2 is not installed")
matplotlib = pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

REFERENCES = Path(__file__).parent / "references"
BOXES = REFERENCES / "boxes.json"
RENEW = bool(os.environ.get("EDGEATTN_RENEW_SCREENSHOTS"))
SHRINK, COLORS = 4, 128
# A4 without the margins of the page, at 96 pixels per inch.
PAPER_WIDTH = 688
CASES = [
    *(("failing", width, look) for width in (390, 768, 1280) for look in ("light", "dark")),
    ("failing", PAPER_WIDTH, "print"),
    ("several-inputs", 390, "light"),
    ("several-inputs", 1280, "dark"),
]
# Heights in pixels and as a share, and differences of channels from 0 to 255: other rasterizers and
# the palette of the references change at most 3.2 and 11.4, the changes below at least 4.5 and 23.
MAX_PIXELS, MAX_SHARE = 6, 0.03
MAX_MEAN, MAX_LOCAL = 4.5, 20.0
BLOCKS = """
const blocks = [...document.querySelectorAll("header > *, main > section, footer")];
return blocks.filter((it) => it.checkVisibility()).map((it) => {
  const box = it.getBoundingClientRect();
  return [it.id || it.getAttribute("aria-labelledby") || it.className || it.tagName,
    box.x + scrollX, box.y + scrollY, box.width, box.height];
}).filter((it) => it[3] > 0 && it[4] > 0);
"""


@pytest.fixture(scope="session")
def page_urls(bundle, text, several_inputs, tmp_path_factory):
    """The pages in the font of Matplotlib, for which their security policy has no permission."""
    font = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
    source = "data:font/ttf;base64," + base64.b64encode(font.read_bytes()).decode()
    style = (
        f"@font-face {{ font-family: Fixed; src: url({source}); }} "
        "* { font-family: Fixed !important; }</style>"
    )
    folder = tmp_path_factory.mktemp("pages")
    urls = {}
    for name, html in (("failing", text), ("several-inputs", several_inputs)):
        path = folder / f"{name}.html"
        html = html.replace("Content-Security-Policy", "ignored", 1)
        html = html.replace(bundle.path.name, "model.edge")
        path.write_text(html.replace("</style>", style, 1), "utf-8")
        urls[name] = path.as_uri()
    return urls


@dataclass(frozen=True)
class Block:
    """A part of the page: x, width and height in pixels, and its picture at a quarter."""

    name: str
    x: int
    width: int
    height: int
    picture: Any

    @property
    def size(self):
        return max(1, self.width // SHRINK), max(1, self.height // SHRINK)


def photograph(browser, url, width, look, scale=1):
    """The blocks of the page from top to bottom."""
    media, dark = ("print", False) if look == "print" else ("", look == "dark")
    chromium.open_page(browser, url, (width, 844), dark=dark, mobile=width < 500, media=media)
    if look == "print":
        browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    browser.execute_async_script("document.fonts.ready.then(() => arguments[0]())")
    height = browser.execute_script("return document.documentElement.scrollHeight")
    clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": scale}
    taken = browser.execute_cdp_cmd(
        "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
    )
    image = Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")
    blocks = []
    for name, x, y, *sides in browser.execute_script(BLOCKS):
        block = Block(name, round(x), round(sides[0]), round(sides[1]), None)
        corners = (x, y, x + sides[0], y + sides[1])
        part = image.crop([round(scale * value) for value in corners])
        blocks.append(replace(block, picture=part.resize(block.size, Image.Resampling.BOX)))
    return blocks


def differences(actual, expected):
    """The mean and the largest difference of the colors of two pictures, in squares of 8 pixels.

    Edges of glyphs, which every rasterizer draws otherwise, average out in a square.
    """
    first, second = (
        np.asarray(item.resize(expected.size, Image.Resampling.BILINEAR), np.float64)
        for item in (actual, expected)
    )
    difference = first - second
    rows, columns = (max(1, length // 8) for length in difference.shape[:2])
    squares = np.array(
        [
            np.abs(part.mean((0, 1))).max()
            for band in np.array_split(difference, rows, axis=0)
            for part in np.array_split(band, columns, axis=1)
        ]
    )
    return squares.mean(), squares.max()


def problems(blocks, references):
    """What differs from the reference, as lines of text."""
    names, expected = ([block.name for block in them] for them in (blocks, references))
    if names != expected:
        return [f"blocks: {names} instead of {expected}"]
    found = []
    for block, reference in zip(blocks, references, strict=True):
        for side, allowed in (
            ("x", 2),
            ("width", 2),
            ("height", max(MAX_PIXELS, MAX_SHARE * reference.height)),
        ):
            before, after = getattr(reference, side), getattr(block, side)
            if abs(after - before) > allowed:
                found.append(f"{block.name}: {side} is {after}, was {before}")
        mean, local = differences(block.picture, reference.picture)
        if mean > MAX_MEAN or local > MAX_LOCAL:
            found.append(f"{block.name}: differs by {mean:.1f} on average, {local:.1f} in a place")
    return found


def references_of(name, width, look):
    """The blocks of a reference, whose pictures are one below the other in a file."""
    key = f"{name}-{width}-{look}"
    sheet = Image.open(REFERENCES / f"{key}.png").convert("RGB")
    blocks, top = [], 0
    for sides in json.loads(BOXES.read_text("utf-8"))[key]:
        block = Block(*sides, None)
        corners = (0, top, block.size[0], top + block.size[1])
        blocks.append(replace(block, picture=sheet.crop(corners)))
        top += block.size[1]
    return blocks


def sheet_of(blocks):
    sizes = [block.size for block in blocks]
    sheet = Image.new("RGB", (max(x for x, _ in sizes), sum(y for _, y in sizes)))
    top = 0
    for block in blocks:
        sheet.paste(block.picture, (0, top))
        top += block.size[1]
    return sheet.quantize(COLORS, kmeans=2, dither=Image.Dither.NONE)


def renew(key, blocks):
    REFERENCES.mkdir(exist_ok=True)
    sheet_of(blocks).save(REFERENCES / f"{key}.png", optimize=True)
    boxes = json.loads(BOXES.read_text("utf-8")) if BOXES.exists() else {}
    boxes[key] = [[block.name, block.x, block.width, block.height] for block in blocks]
    lines = [f" {json.dumps(key)}: {json.dumps(boxes[key])}" for key in sorted(boxes)]
    BOXES.write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")


@pytest.mark.parametrize(
    ("name", "width", "look"),
    [
        pytest.param(*case, marks=[pytest.mark.long] if k % 3 else [])
        for k, case in enumerate(CASES)
    ],
)
def test_the_page_looks_as_before(browser, page_urls, name, width, look, tmp_path):
    blocks = photograph(browser, page_urls[name], width, look)
    if RENEW:
        renew(f"{name}-{width}-{look}", blocks)
    found = problems(blocks, references_of(name, width, look))
    if found:
        path = tmp_path / f"{name}-{width}-{look}.png"
        sheet_of(blocks).save(path)
        found.append(f"The picture is {path}. If it is right, run: make screenshots")
    assert not found, "\n".join(found)


def test_references_are_those_of_the_cases_and_small():
    keys = {"-".join(map(str, case)) for case in CASES}
    assert set(json.loads(BOXES.read_text("utf-8"))) == keys
    pictures = {path.stem: path.stat().st_size for path in REFERENCES.glob("*.png")}
    assert set(pictures) == keys
    assert max(pictures.values()) < 100_000


CHANGES = {
    "other color": ".choice { background: #ffd0d0 !important; }",
    "missing values": ".key dd { visibility: hidden; }",
    "missing pictures": "figure svg { visibility: hidden; }",
    "other order": ".key { direction: rtl; }",
    "cards instead of a table": ".cards tr { display: block; }",
    "larger text": "body { font-size: 18px !important; }",
    "dark text on dark": "header { color: #333 !important; }",
}


@pytest.mark.parametrize("change", every_third(list(CHANGES)))
def test_changes_of_the_page_are_found(browser, page_urls, change):
    name, width, look = ("failing", 1280, "dark" if "dark" in change else "light")
    style = f"const it = document.createElement('style'); it.textContent = {CHANGES[change]!r};"
    identifier = browser.execute_cdp_cmd(
        "Page.addScriptToEvaluateOnNewDocument",
        {
            "source": f"addEventListener('DOMContentLoaded', () => {{ {style} "
            "document.head.append(it); });"
        },
    )["identifier"]
    try:
        blocks = photograph(browser, page_urls[name], width, look)
    finally:
        browser.execute_cdp_cmd(
            "Page.removeScriptToEvaluateOnNewDocument", {"identifier": identifier}
        )
    assert problems(blocks, references_of(name, width, look))


@pytest.mark.parametrize("width", only([390, 1280], 390))
def test_another_rasterizer_makes_no_difference(browser, page_urls, width):
    """At twice the resolution, glyphs are drawn and positioned otherwise."""
    blocks = photograph(browser, page_urls["failing"], width, "light", scale=2)
    assert problems(blocks, references_of("failing", width, "light")) == []
