"""The description on a package index has no pictures and links that need the repository."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
metadata = pytest.importorskip("hatchling.metadata.core", reason="hatchling is not installed")


@pytest.fixture(scope="module")
def description():
    from hatchling.plugin.manager import PluginManager

    core = metadata.ProjectMetadata(str(ROOT), PluginManager()).core
    assert core.readme_content_type == "text/markdown"
    return core.readme


def test_nothing_in_it_needs_the_repository(description):
    targets = re.findall(r"\]\(([^)]*)\)", description)
    assert all(target.startswith(("#", "https://", "http://")) for target in targets)
    assert "![" not in description
    assert not re.search(r"\.(gif|png|svg)\b", description)
    # A caption without its picture would be a riddle.
    assert "after each epoch" not in description


def test_everything_else_is_the_readme(description):
    readme = (ROOT / "README.md").read_text("utf-8")
    for heading in re.findall(r"^#.*$", readme, re.MULTILINE):
        assert heading in description.splitlines()
    blocks = re.findall(r"^```.*?^```", readme, re.MULTILINE | re.DOTALL)
    assert blocks
    assert re.findall(r"^```.*?^```", description, re.MULTILINE | re.DOTALL) == blocks
    for text, _ in re.findall(r"(?<!!)\[([^\]!]+)\]\(([^)]*)\)", readme):
        assert text in description
    tables = [line for line in readme.splitlines() if line.startswith("|")]
    assert len([x for x in description.splitlines() if x.startswith("|")]) == len(tables)


def test_metadata_has_no_address_that_does_not_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "urls" not in project
