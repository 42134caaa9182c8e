"""Rows of numbers in lines, compared with what float() reads in each field."""

import random

import numpy as np
import pytest

from edgeattn.inference.decimal_rows import decimal_rows

# Numbers that are read many at once, and those that float() reads.
FIELDS = [
    *("0", "-0", "0.0", "-0.000", "1", "-7", "00012", "5.", ".5", "-.5", "9.81", "-6.82678001"),
    *("123456789012345", "0.123456789012345", "-12345678.9012345", "0.000000000000001", "0.3"),
    *("1e3", "-6.82678001e-05", "1E+300", "5e-324", "1e999", "nan", "-inf", "Infinity", "1_000"),
    *("0.1234567890123456789", "9007199254740993", "123456789012345678901234567890", "+3", "\t4"),
]
NO_NUMBERS = [
    *("", "-", ".", "-.", "1.2.3", "--1", "1-2", "-1-", "1e", "x", "1;2", "0x10", "\u0661", "\xff"),
    *("[1", '"1"', "1 2", "1..", "e5", "1e5.0", "\0", "1\r2"),
]


def lines_of(rows, separator=","):
    return [separator.join(row).encode("latin-1", "replace") for row in rows]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("many", [12, len(FIELDS)])
def test_each_number_is_that_of_float(seed, many):
    rng = random.Random(seed)
    columns, count = rng.randrange(1, 5), rng.randrange(1, 40)
    fields = [
        *FIELDS[:many],
        *(repr(round(rng.gauss(0, 100), rng.randrange(9))) for _ in range(30)),
    ]
    rows = [rng.choices(fields, k=columns) for _ in range(count)]
    expected = np.array([[float(field) for field in row] for row in rows])
    ends = ["", "\r"] if seed % 2 else [""]
    lines = [line + rng.choice(ends).encode() for line in lines_of(rows, ", " if seed % 3 else ",")]
    actual = decimal_rows(lines, columns)
    # As bytes, which tell -0 from 0.
    assert actual.tobytes() == expected.tobytes()


def test_each_field_in_each_position():
    for field in FIELDS:
        for row in ([field, "1.5"], ["1.5", field]):
            (actual,) = decimal_rows(lines_of([row]), 2)
            assert actual.tobytes() == np.array([float(item) for item in row]).tobytes()


@pytest.mark.parametrize("field", NO_NUMBERS)
def test_a_field_that_is_no_number(field):
    for row in ([field, "1.5"], ["1.5", field]):
        assert decimal_rows(lines_of([["1", "2"]] * 9 + [row] + [["3.5", "4"]] * 9), 2) is None
        assert decimal_rows(lines_of([row]), 2) is None


@pytest.mark.parametrize(
    "lines",
    [
        [b"1,2,3"],
        [b"1"],
        [b""],
        [b"1,2", b""],
        [b"1,2", b"3"],
        [b"1,2,3", b"4"],
        [b"1", b"2,3,4"],
        [b",1", b"2,3"],
        [b"1,2", b"3 4"],
        [b"1  2"],
        [b" 1 2"],
    ],
)
def test_rows_of_another_width(lines):
    assert decimal_rows(lines, 2) is None


def test_spaces():
    np.testing.assert_array_equal(decimal_rows([b"1 -2.5", b"3e1 4\r"], 2), [[1, -2.5], [30, 4]])
    np.testing.assert_array_equal(decimal_rows([b"1.5", b"2"], 1), [[1.5], [2]])


def row_of(line):
    """A line by rules of its own: fields between commas or, without one, white space."""
    text = line.decode().strip()
    return [float(field) for field in (text.split(",") if "," in text else text.split())]


@pytest.mark.parametrize("seed", range(4))
def test_random_characters(seed):
    """What is read is what is in the lines; a line that is malformed is never read."""
    rng, accepted = random.Random(seed), 0
    for _ in range(3000):
        columns = rng.choice([1, 2, 2, 3])
        separator = rng.choice([",", ",", ", ", " "])
        lines = []
        for _ in range(rng.randrange(1, 4)):
            fields = [
                "".join(rng.choices("0123456789.-", k=rng.randrange(1, 6))) for _ in range(columns)
            ]
            line = list(separator.join(fields))
            if rng.random() < 0.3:
                line.insert(rng.randrange(len(line) + 1), rng.choice(",. -+e_\r\tnx"))
            lines.append("".join(line).encode())
        rows = decimal_rows(lines, columns)
        if rows is not None:
            accepted += 1
            expected = np.array([row_of(line) for line in lines])
            assert rows.tobytes() == expected.tobytes(), lines
    assert accepted > 100
