"""Text for terminals and pages: numbers with nouns, and names that cannot control the terminal."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from long_parameters import only

from edgeattn.printable import counted, enumerated, join_lines, keras_name, printable

ROOT = Path(__file__).parents[1]
# What results, tables, reports and progress messages count; messages that compare a number with
# another one ("2 inputs instead of 1") do not occur with a single one.
NOUNS = (
    *("artifact", "bundle", "candidate", "check", "core", "edge case", "kind", "operator"),
    *("parameter", "prediction", "reading", "row", "run", "sample", "thread", "time step"),
)
# The number is never 1, or the verb would have to agree with it too.
EXCEPTIONS = {
    "{len(self.conversions)} bundles",
    "{count} samples excluded",
    "{self.needed_samples} samples would",
    "{total} operators compute",
    "{file.getframerate()} samples per",
    "{SAMPLES} seeded samples",
    "{worker.state.nthreads} threads",
    "{' and '.join(map(str, sorted(counts)))} rows",
}


@pytest.mark.parametrize("version", ["2.2.4-tf", "2.15.0", "3.15.1", "1.2.2"])
def test_name_of_keras(version):
    assert keras_name(version) == f"Keras {version}"


@pytest.mark.parametrize("version", ["2.16.0", "2.21.0"])
def test_name_of_the_package_that_continues_keras_2(version):
    assert keras_name(version) == f"tf_keras {version}"


def test_name_of_the_keras_of_files_that_do_not_contain_it():
    """Keras 2.15 and all versions of tf_keras save the same files of weights."""
    assert keras_name("2.16 or later") == "Keras 2.15 or tf_keras"


def test_counted():
    assert counted(1, "sample") == "1 sample"
    assert counted(0, "sample") == "0 samples"
    assert counted(2000, "edge case") == "2,000 edge cases"
    assert [counted(n, "loss", "losses") for n in (1, 2)] == ["1 loss", "2 losses"]


def texts_after_numbers(source: str) -> Iterator[str]:
    """``{expression} text`` for every value in a formatted string that text follows."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            for value, text in zip(node.values, node.values[1:], strict=False):
                if isinstance(value, ast.FormattedValue) and isinstance(text, ast.Constant):
                    yield f"{{{ast.unparse(value.value)}}}{text.value}"


def without_counted(texts: Iterator[str]) -> list[str]:
    pattern = re.compile(rf"^\{{(?!counted).*\}} ((?!are|has)\w+ )?({'|'.join(NOUNS)})s\b( \w+)?")
    found = [match[0] for text in texts if (match := pattern.match(text))]
    return [item for item in found if not any(item.startswith(known) for known in EXCEPTIONS)]


def test_forms_without_counted_are_found():
    source = "f'{len(x)} artifacts', f'{n:,} of {m:,} samples', f'{a} is 2 samples'"
    assert without_counted(texts_after_numbers(source)) == ["{len(x)} artifacts", "{m} samples"]


@pytest.mark.parametrize("package", only(["edgeattn", "converters"], "converters"))
def test_numbers_of_one_have_a_singular(package):
    found = {
        path.name: texts
        for path in sorted((ROOT / package).rglob("*.py"))
        if (texts := without_counted(texts_after_numbers(path.read_text("utf-8"))))
    }
    assert not found


@pytest.mark.parametrize("package", ["edgeattn", "converters"])
def test_lists_of_words_are_joined_by_one_function(package):
    """``" and ".join`` alone writes "a and b and c"."""
    pattern = re.compile(r"""(["']) (and|or) \1\.join""")
    found = {
        path.name
        for path in sorted((ROOT / package).rglob("*.py"))
        if pattern.search(path.read_text("utf-8"))
    }
    assert not found


def test_lists_of_words():
    assert enumerated([]) == ""
    assert enumerated(["a"], "or") == "a"
    assert enumerated(["a", "b"]) == "a and b"
    assert enumerated(["a", "b", "c"]) == "a, b and c"
    assert enumerated(("a", "b", "c"), "or") == "a, b or c"


def test_templates_of_the_report_count_with_the_filter():
    for path in (ROOT / "edgeattn" / "report" / "templates").iterdir():
        found = re.findall(rf"\}}\}} ({'|'.join(NOUNS)})s\b", path.read_text("utf-8"))
        assert not found, path.name


def test_control_characters_become_escapes():
    assert printable("a\x1b[2J\nb") == "a\\x1b[2J\\nb"
    assert join_lines(["a\nb", "c"]) == "a\\nb\nc"
