"""Parts of the long tests: together they are all of them."""

from __future__ import annotations

from pathlib import Path

from long_parameters import is_in_part

FILES = sorted(path.name for path in Path(__file__).parent.rglob("test_*.py"))


def test_each_file_is_in_one_part() -> None:
    for count in (1, 3):
        parts = [f"{number}/{count}" for number in range(1, count + 1)]
        assert all(sum(is_in_part(file, part) for part in parts) == 1 for file in FILES)


def test_parts_have_similar_numbers_of_files() -> None:
    sizes = [sum(is_in_part(file, f"{number}/3") for file in FILES) for number in (1, 2, 3)]
    assert min(sizes) > 0.8 * max(sizes)
