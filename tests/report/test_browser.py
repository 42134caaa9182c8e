"""The HTML report in headless Chromium, driven by Selenium; skipped without a browser."""

import base64
import json
import re
from dataclasses import replace

import chromium
import pytest
from long_parameters import only

from edgeattn.schemes import FORMATS, SCHEMES
from edgeattn.validation.report import Report

page = pytest.importorskip("edgeattn.report.page", reason="Jinja2 is not installed")
PHONE, DESKTOP = (390, 844), (1200, 900)
# The lowest contrast between a text and its background (WCAG 2, 1.4.3).
CONTRAST = """
const channel = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const parse = (text) => {
  const n = text.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
  const scale = text.startsWith("rgb") ? 255 : 1;
  return [n[0] / scale, n[1] / scale, n[2] / scale, n.length > 3 ? n[3] : 1];
};
const over = (top, ground) => top.slice(0, 3).map((v, k) => v * top[3] + ground[k] * (1 - top[3]));
const ground = (element) => {
  if (element === null) return [1, 1, 1];
  const own = parse(getComputedStyle(element).backgroundColor);
  return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement));
};
const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
let worst = [99, ""];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const element = walk.currentNode.parentElement;
  const drawn = element.closest("svg, script");
  if (drawn || !walk.currentNode.data.trim() || !element.checkVisibility()) continue;
  const below = ground(element);
  const ink = over(parse(getComputedStyle(element).color), below);
  const [one, other] = [light(ink), light(below)].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05);
  if (ratio < worst[0]) worst = [ratio, walk.currentNode.data.trim()];
}
return worst;
"""
VISIBLE = (
    "return [...document.querySelectorAll('figure[data-map]')].filter(it => it.checkVisibility())"
)


@pytest.fixture(scope="module")
def page_url(text, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(text, "utf-8")
    return path.as_uri()


@pytest.fixture
def opened(browser, page_url):
    """Opens the report on a desktop or a phone, in light or dark mode."""

    def open_page(size=DESKTOP, dark=False, url=page_url):
        return chromium.open_page(browser, url, size, dark=dark, mobile=size == PHONE)

    return open_page


def visible(browser, name):
    """The samples and heads of the visible figures of a map."""
    figures = browser.execute_script(VISIBLE)
    return [
        (figure.get_attribute("data-sample"), figure.get_attribute("data-head"))
        for figure in figures
        if figure.get_attribute("data-map") == name
    ]


def pick(browser, name, axis, value):
    from selenium.webdriver.support.ui import Select

    selector = f'select[data-picks="{name}"][data-axis="{axis}"]'
    Select(browser.find_element("css selector", selector)).select_by_value(value)


def test_the_page_renders_without_warnings_and_requests_nothing(opened, page_url, tmp_path):
    browser = opened()
    assert "fail" in browser.title
    heading = browser.find_element("css selector", "h1")
    assert heading.is_displayed()
    assert heading.text.endswith("FAIL")
    assert browser.get_log("browser") == []
    requests = [
        message["params"]["request"]["url"]
        for entry in browser.get_log("performance")
        if (message := json.loads(entry["message"])["message"])["method"]
        == "Network.requestWillBeSent"
    ]
    assert requests
    assert [url for url in requests if url != page_url and not url.startswith("data:")] == []
    assert browser.save_screenshot(str(tmp_path / "page.png"))
    assert (tmp_path / "page.png").stat().st_size > 20_000


def test_pickers_choose_sample_and_head(opened):
    browser = opened()
    name = "onnx-float32-map-1"
    assert visible(browser, name) == [("worst", "1")]
    before = browser.find_element("css selector", f'figure[data-map="{name}"]').text
    pick(browser, name, "sample", "best")
    assert visible(browser, name) == [("best", "1")]
    pick(browser, name, "head", "0")
    assert visible(browser, name) == [("best", "0")]
    caption = next(
        it.text for it in browser.execute_script(VISIBLE) if it.get_attribute("data-map") == name
    )
    assert "head 1: the best of 7 samples, number" in caption
    assert before != caption
    # The other map is unchanged.
    assert visible(browser, "onnx-float32-map-0") == [("worst", "0")]


def test_links_unfold_the_artifacts_that_passed(opened):
    browser = opened()
    is_open = "return document.querySelector('#{} > details').open"
    for name in ("onnx-float32", "onnx-int8"):
        link = browser.find_element("css selector", f'nav a[href="#{name}"]')
        browser.execute_script("arguments[0].click()", link)
        browser.execute_async_script("requestAnimationFrame(() => arguments[0]())")
        assert browser.execute_script(is_open.format(name)) is True


@pytest.mark.parametrize("dark", only([False, True], True))
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_text_has_enough_contrast(opened, dark, size, tmp_path):
    browser = opened(size, dark)
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    browser.execute_script("document.querySelectorAll('details').forEach(it => { it.open = true })")
    contrast, lowest = browser.execute_script(CONTRAST)
    assert contrast >= 4.5, lowest
    browser.save_screenshot(str(tmp_path / "page.png"))


def test_a_phone_needs_no_horizontal_scrolling(opened):
    browser = opened(PHONE)
    browser.execute_script("document.querySelectorAll('details').forEach(it => { it.open = true })")
    wide = browser.execute_script(
        """
        const wide = [...document.querySelectorAll("main *, header *")].filter((it) =>
          it.checkVisibility() && !it.closest(".scroll, svg, thead")
          && it.getBoundingClientRect().right > innerWidth + 1);
        const tags = wide.map((it) => it.outerHTML.slice(0, 80));
        return [document.documentElement.scrollWidth, ...tags];
        """
    )
    assert wide == [PHONE[0]]


def test_the_first_screen_of_a_phone_answers_which_file(opened):
    bottoms = opened(PHONE).execute_script(
        "return [...document.querySelectorAll('h1 .verdict, .choice p, .key dd')]"
        ".map((it) => it.getBoundingClientRect().bottom)"
    )
    assert len(bottoms) == 2 + 4
    assert max(bottoms) <= PHONE[1]


def printed_pages(browser):
    printed = browser.execute_cdp_cmd(
        "Page.printToPDF", {"printBackground": True, "preferCSSPageSize": True}
    )
    content = base64.b64decode(printed["data"])
    assert content.startswith(b"%PDF")
    return len(re.findall(rb"/Type\s*/Page\b", content))


def test_print_shows_the_worst_sample_of_artifacts_that_did_not_pass(opened):
    browser = opened()
    pick(browser, "onnx-float32-map-1", "sample", "best")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert visible(browser, "onnx-float32-map-1") == [("worst", "1")]
    # The map with the larger error only, and no more than the values that missed a limit.
    assert visible(browser, "onnx-float32-map-0") == []
    assert not browser.find_element("css selector", ".checks").is_displayed()
    assert browser.find_element("css selector", ".identity dl").is_displayed()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert visible(browser, "onnx-float32-map-1") == [("best", "1")]


def test_a_bundle_whose_files_all_fail_prints_on_four_pages(opened, bundle, report, tmp_path):
    failed = report.artifacts[0]
    kinds = [(format, scheme) for format in FORMATS for scheme in SCHEMES]
    items = [
        replace(failed, artifact=replace(failed.artifact, format=format, scheme=scheme))
        for format, scheme in kinds
    ]
    path = tmp_path / "r.html"
    path.write_text(page.render(bundle, Report(tuple(items))), "utf-8")
    browser = opened(url=path.as_uri())
    assert 1 <= printed_pages(browser) <= 4
    # Nothing is cut off at the right.
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    sheet = {"width": 688, "height": 971, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sheet)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 688
    assert "more lines are in the HTML file" in browser.find_element("css selector", "body").text


def test_screen_readers_get_names_and_roles(opened):
    browser = opened()
    browser.execute_cdp_cmd("Accessibility.enable", {})
    nodes = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            name = node.get("name", {}).get("value", "")
            named.setdefault(node["role"]["value"], []).append(name.strip())
    for role in ("image", "table", "combobox", "navigation", "region"):
        assert named[role], role
        assert all(named[role]), role
    assert {"cell", "columnheader", "rowheader"} <= set(named)
    assert any(name.startswith("Keras, weights: Map heads, head 2") for name in named["image"])


def test_the_keyboard_reaches_everything_with_a_visible_focus(opened):
    from selenium.webdriver.common.keys import Keys

    browser = opened()
    reached = []
    for _ in range(12):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        text, style, width = browser.execute_script(
            "const it = document.activeElement, style = getComputedStyle(it);"
            "return [it.textContent.trim(), style.outlineStyle, parseFloat(style.outlineWidth)]"
        )
        assert (style, width >= 2) == ("solid", True), text
        reached.append(text)
    assert reached[0] == "Skip to the verdict"
    assert any(text.startswith("Identity") for text in reached)
    assert any("onnx int8" in text for text in reached)
