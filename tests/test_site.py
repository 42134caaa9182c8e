"""The documentation site: its navigation has every page, and its build finds broken links."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# Folders of pages, and what the pages are generated from.
COPIED = ["docs", "benchmarks", "examples", "sample_models", "tests/specimens"]
LINKED = ["edgeattn", "converters"]


def load_navigation():
    spec = importlib.util.spec_from_file_location("navigation", DOCS / "site" / "navigation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def listed_pages(navigation) -> list[str]:
    """The pages of the navigation and those below them, without their extension."""
    pages = [page for links in navigation.navigation().values() for _, page in links]
    for page in list(pages):
        if page.endswith("/README"):
            pages += [below for _, below in navigation.links_below(page)]
    return pages


def test_navigation_lists_every_page_once():
    pages = listed_pages(load_navigation())
    assert len(pages) == len(set(pages))
    written = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for pattern in ("*.md", "experiments/*.md", "site/python/*.rst")
        for path in DOCS.glob(pattern)
    }
    assert written - {"docs/README"} <= set(pages)
    for page in pages:
        assert any((ROOT / f"{page}.{kind}").is_file() for kind in ("md", "rst")), page


def test_python_pages_are_those_of_the_packages():
    navigation = load_navigation()
    for title, page in navigation.PYTHON_NAMES:
        text = (ROOT / f"{page}.rst").read_text("utf-8")
        module = re.search(r"^\.\. automodule:: (\S+)$", text, re.M)[1]
        path = module.replace(".", "/") + "/__init__.py"
        assert (ROOT / path).is_file() or (ROOT / "converters" / path).is_file(), title


def copied_pages(folder: Path) -> Path:
    """The pages in ``folder``, with one link whose heading does not exist."""
    for name in COPIED:
        ignored = shutil.ignore_patterns("*.h5", "*.keras", "*.npz")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for page in ROOT.glob("*.md"):
        shutil.copy(page, folder)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)
    with (folder / "docs" / "glossary.md").open("a", encoding="utf-8") as page:
        page.write("\n[broken](verdict.md#no-such-heading)\n")
    return folder


@pytest.mark.long
def test_build_reports_a_broken_link_and_nothing_else(tmp_path):
    for package in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(package, reason="The site needs: pip install 'edgeattn[docs]'")
    source = copied_pages(tmp_path / "source")
    site = tmp_path / "site"
    command = [sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going"]
    built = subprocess.run(
        [*command, "--conf-dir", source / "docs" / "site", source, site],
        capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    warnings = [line for line in built.stderr.splitlines() if "WARNING" in line or "ERROR" in line]
    assert len(warnings) == 1, built.stderr
    assert "docs/glossary.md" in warnings[0]
    assert "no-such-heading" in warnings[0]
    assert built.returncode == 1
    for page in [*listed_pages(load_navigation()), "README", "index"]:
        assert (site / f"{page}.html").is_file(), page
