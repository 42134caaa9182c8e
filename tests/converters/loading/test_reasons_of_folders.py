"""Messages for SavedModel folders of which neither the layers nor the graph load."""

from edgeattn_converters.loading.load import _both_reasons, _in_one_line


def test_the_same_reason_is_given_once() -> None:
    layers = "Cannot read the variables of the SavedModel m: m/variables; No such file"
    graph = "The SavedModel m cannot be loaded: m/variables; No such file"
    assert _both_reasons(layers, graph) == layers


def test_other_reasons_are_two_sentences() -> None:
    assert _both_reasons("No layer 'a'", "The graph has a resource.") == (
        "No layer 'a'. Nor can the graph in the folder be converted: The graph has a resource."
    )


def test_reasons_of_several_lines_are_one_note() -> None:
    message = "The file needs 2 classes:\n  Layer 'a' needs 'A'.\n  Layer 'b' needs 'B'."
    assert _in_one_line(message) == (
        "The file needs 2 classes: Layer 'a' needs 'A'. Layer 'b' needs 'B'."
    )
    assert _in_one_line("No layer 'a'.") == "No layer 'a'."
