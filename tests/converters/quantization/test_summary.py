"""What was asked and what became of it, on counts drawn by hand."""

from __future__ import annotations

import pytest

from edgeattn.errors import ConversionError
from edgeattn_converters.quantization.summary import SchemeSummary
from edgeattn_converters.recipes import recipe_for

INT8 = SchemeSummary(
    (("FULLY_CONNECTED", "int8"), ("ADD", "int8"), ("SOFTMAX", "float32")),
    {"int8": 9000, "float32": 1000},
    {"int8": 9000},
)


def test_the_sentence_says_what_stayed() -> None:
    told = INT8.sentence(recipe_for("int8"), ["kept on purpose"])
    assert told == (
        "int8 asked; 1 of 3 operators stayed float32 (SOFTMAX 1); "
        "90% of 10,000 weights are int8; kept on purpose"
    )
    INT8.check(recipe_for("int8"))


def test_weights_that_stayed_float32_are_no_int8() -> None:
    half = SchemeSummary((("ADD", "int8"),), {"float32": 9000}, {"float32": 6000, "int8": 3000})
    with pytest.raises(ConversionError, match="33% of the weights are int8"):
        half.check(recipe_for("int8"))


def test_activations_that_stayed_float32_are_no_int8() -> None:
    stayed = SchemeSummary((("ADD", "float32"),), {"int8": 9000}, {"int8": 9000})
    with pytest.raises(ConversionError, match="no operator computes in int8"):
        stayed.check(recipe_for("int8"))
    stayed.check(recipe_for("dynamic_int8"))


def test_small_weights_are_told_and_are_no_failure() -> None:
    small = SchemeSummary((("ADD", "float32"),), {"float32": 90}, {})
    small.check(recipe_for("float16"))
    assert "none is large enough" in small.sentence(recipe_for("float16"))
