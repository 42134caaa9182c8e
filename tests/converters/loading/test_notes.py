"""Notes about several layers."""

from edgeattn_converters.loading.notes import combined_notes


def test_notes_that_differ_in_the_layer_are_one() -> None:
    notes = ["a: replaced.", "The model is old.", "b: replaced.", "a: other.", "b: replaced."]
    assert combined_notes(notes) == ("a, b: replaced.", "The model is old.", "a: other.")


def test_sentences_with_a_colon_are_no_names() -> None:
    notes = ("The layers differ: a <- b.", "The layers differ: c <- d.")
    assert combined_notes(notes) == notes


def test_many_layers_are_counted() -> None:
    assert combined_notes(f"x{number}: replaced." for number in range(9)) == (
        "x0, x1, x2, x3, x4 and 4 more layers: replaced.",
    )
