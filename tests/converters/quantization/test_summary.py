"""The summary of what became of a scheme, on hand-written counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edgeattn.errors import ConversionError
from edgeattn.file_structure.contents import (
    FileContents,
    Weight,
    count_weights,
    counts_by_dtype,
)
from edgeattn_converters.quantization.summary import (
    SchemeSummary,
    require_scheme,
    summary_of,
    summary_sentence,
)
from edgeattn_converters.recipes import recipe_for

INT8 = SchemeSummary(
    {"int8": {"FULLY_CONNECTED": 1, "ADD": 1}, "float32": {"SOFTMAX": 1}},
    {"int8": 9000, "float32": 1000},
    {"int8": 9000},
    scheme="int8",
)


def test_summary_of_a_file() -> None:
    operators = [("FULLY_CONNECTED", "int8"), ("SOFTMAX", "float32"), ("ADD", "int8")]
    weights = [Weight("int8", 4000), Weight("float32", 511), Weight("float32", 489)]
    # A constant that no operator reads is no evidence of a scheme.
    weights += [Weight("int8", 5000), Weight("float16", 600, used=False)]
    every, large = count_weights(weights)
    assert every == {"float16": 600, "float32": 1000, "int8": 9000}
    del every["float16"]
    contents = FileContents((), (), {}, counts_by_dtype(operators), every, large)
    assert summary_of(contents) == INT8
    assert INT8.to_json() == {
        "computes_in": {"int8": {"ADD": 1, "FULLY_CONNECTED": 1}, "float32": {"SOFTMAX": 1}},
        "weights": {"float32": 1000, "int8": 9000},
    }


def test_sentence_states_what_is_float() -> None:
    summary = replace(INT8, notes=("float32 on purpose",))
    assert summary_sentence(summary, recipe_for("int8")) == (
        "requested int8; 2 of 3 operators compute in int8, 1 in float32 (SOFTMAX 1); "
        "90% of 10,000 weights are int8; float32 on purpose"
    )
    require_scheme(summary, recipe_for("int8"))


def test_a_file_without_operators() -> None:
    """Constant outputs, such as ``2 * ones_like(x)``."""
    empty = SchemeSummary({}, {}, {}, scheme="int8")
    with pytest.raises(ConversionError, match="no operators, because its outputs do not depend"):
        require_scheme(empty, recipe_for("int8"))


def test_a_file_that_computes_with_integers_only() -> None:
    """Its outputs depend on its inputs, such as ``max(i + 1)`` of int32."""
    contents = FileContents((), (), {"ADD": 1, "REDUCE_MAX": 2}, {}, {}, {})
    with pytest.raises(ConversionError) as error:
        require_scheme(summary_of(contents), recipe_for("int8"))
    assert "The model computes with integers only (REDUCE_MAX 2, ADD 1), which" in str(error.value)
    partly = FileContents((), (), {"ADD": 3}, {"float32": {"ADD": 1}}, {}, {})
    assert summary_of(partly).without_reals == {"ADD": 2}


def test_float32_weights_do_not_achieve_int8() -> None:
    half = SchemeSummary({"int8": {"ADD": 1}}, {"float32": 9000}, {"float32": 6000, "int8": 3000})
    with pytest.raises(ConversionError, match="33% of the weights are int8"):
        require_scheme(half, recipe_for("int8"))
    require_scheme(half, recipe_for("int8"), float16_weights=True)


def test_float32_activations_do_not_achieve_int8() -> None:
    floats = SchemeSummary({"float32": {"ADD": 1}}, {"int8": 9000}, {"int8": 9000})
    with pytest.raises(ConversionError, match="no operator computes in int8"):
        require_scheme(floats, recipe_for("int8"))
    require_scheme(floats, recipe_for("dynamic_int8"))


def test_small_weights_are_no_failure() -> None:
    small = SchemeSummary({"float32": {"ADD": 1}}, {"float32": 90})
    require_scheme(small, recipe_for("float16"))
    assert "no weight is large enough" in summary_sentence(small, recipe_for("float16"))


@pytest.mark.parametrize(
    ("operators", "more", "reason"),
    [
        ({"Gather": 2, "Reshape": 1}, {}, "only looks up, moves or selects values (Gather 2, "),
        ({"RESHAPE": 1, "TRANSPOSE": 2}, {}, "values (TRANSPOSE 2, RESHAPE 1)."),
        ({"Slice": 1}, {"recurrent": {"Loop": 1}}, "recurrent layers stay float32 (Loop 1)."),
        ({"Where": 1, "Div": 1}, {}, "Quotients and the values that they are computed from stay"),
        ({"LOG": 1, "MUL": 3}, {"exact": 4224}, "Spectra, and what leads from them to a logarithm"),
        ({"SOFTMAX": 1}, {"notes": ("in float32: softmax (why)",)}, "In float32: softmax (why)."),
        ({"Tanh": 1, "Reshape": 1}, {}, "These operators stay float32: Tanh 1, Reshape 1."),
    ],
)
def test_the_reason_names_what_is_float(operators: Any, more: Any, reason: str) -> None:
    summary = SchemeSummary({"float32": operators}, {}, **more)
    with pytest.raises(ConversionError, match="no operator computes in int8") as caught:
        require_scheme(summary, recipe_for("int8"))
    assert reason in caught.value.message


def test_a_loop_is_recurrent() -> None:
    operators = {"Loop": 1, "Slice": 1}
    contents = FileContents((), (), operators, {"float32": {"Slice": 1}}, {}, {})
    assert summary_of(contents).recurrent == {"Loop": 1}


def test_int16_constants_are_quantized() -> None:
    """A large mask that is added to int16 scores is int16, as the kernel requires."""
    masked = SchemeSummary({"int16": {"ADD": 1}}, {}, {"int16": 4096, "int8": 600})
    require_scheme(masked, recipe_for("int16x8"))
    with pytest.raises(ConversionError, match="13% of the weights are int8"):
        require_scheme(replace(masked, operators={"int8": {"ADD": 1}}), recipe_for("int8"))
