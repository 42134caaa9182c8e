"""The inputs of a signature of a SavedModel: arrays of numbers whose first axis is the samples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeattn_converters.loading.signatures.signature_batch import call_signature
from edgeattn_converters.loading.signatures.signature_operations import called, unsupported

# Arguments of tf.function that are False at inference.
_TRAINING = ("training", "is_training")
# Tensors of several arrays, which are separate inputs of a signature.
_COMPOSITE = {"RAGGED_TENSOR_SPEC": "ragged", "SPARSE_TENSOR_SPEC": "sparse"}
SAVE_FUNCTION = "tf.saved_model.save(module, folder, signatures=module.f)"


def inference_function(
    path: Path, message: Any, name: str, function: Any
) -> tuple[Any, tuple[str, ...]]:
    """Return the signature ``name`` as a function of its samples, and notes about other inputs.

    ``message`` is the content of the folder's file. Raises :class:`UnsupportedModelError` unless
    the inputs that remain are arrays of numbers with an axis of samples.
    """
    _check_composite(path, message, name, function)
    _, specs = function.structured_input_signature
    constants = {
        key: False
        for key, spec in specs.items()
        if key in _TRAINING and spec.shape.rank == 0 and spec.dtype.is_bool
    }
    rest = {key: spec for key, spec in specs.items() if key not in constants}
    _check_specs(path, rest)
    if not constants:
        return function, ()
    notes = tuple(
        f"The input {key!r} of the signature is False, as at inference." for key in constants
    )
    return _bound(function, rest, constants), notes


def _bound(function: Any, specs: Mapping[str, Any], constants: Mapping[str, Any]) -> Any:
    """The function of some inputs with constants for the others."""
    import tensorflow as tf

    bound = tf.function(
        lambda **inputs: call_signature(
            function, {**inputs, **{name: tf.constant(value) for name, value in constants.items()}}
        ),
        autograph=False,
    )
    return bound.get_concrete_function(**specs)


def _check_specs(path: Path, specs: Mapping[str, Any]) -> None:
    import tensorflow as tf

    if not specs:
        raise unsupported(
            path, "has no inputs.", f"Save a function of the samples: {SAVE_FUNCTION}"
        )
    for name, spec in specs.items():
        if spec.shape.rank is None:
            raise unsupported(
                path,
                f"has an input {name!r} whose number of axes is not known.",
                "Save it with a signature that has one, None for the samples: "
                f"{name} = tf.TensorSpec((None, ...), tf.{spec.dtype.name})",
            )
        if not spec.shape.rank:
            raise unsupported(
                path,
                f"has an input {name!r} of the shape (), without an axis of samples.",
                f"Save a function that sets it: {SAVE_FUNCTION}",
            )
        if spec.dtype == tf.string:
            raise unsupported(
                path,
                f"has an input {name!r} of strings.",
                "Save a signature that takes the numbers which the graph makes of them: "
                f"{SAVE_FUNCTION}. Or convert the Keras file of the model, if there is one: its "
                "layers for text become the front end of the bundle.",
            )


def _check_composite(path: Path, message: Any, name: str, function: Any) -> None:
    """Raise an error for a ragged or sparse tensor, which a signature takes as several arrays."""
    [meta] = message.meta_graphs
    stored = meta.object_graph_def.concrete_functions
    for called_name in functions_of(message).get(name, ()):
        specs = str(stored[called_name].canonicalized_input_signature)
        for spec_class, kind in _COMPOSITE.items():
            if f"type_spec_class: {spec_class}" in specs:
                names = ", ".join(map(repr, sorted(function.structured_input_signature[1])))
                raise unsupported(
                    path,
                    f"takes a {kind} tensor, as the arrays {names}, whose first axes are not the "
                    "samples.",
                    "Save a function of an array with as many values for each sample, which makes "
                    f"the {kind} tensor itself or needs none: {SAVE_FUNCTION}",
                )


def without_outputs(path: Path, signature: str, others: Sequence[str]) -> str:
    """Return the code that saves a signature of a folder without some of its outputs."""
    return (
        f"m = tf.saved_model.load({path.name!r}); "
        f"f = m.signatures[{signature!r}]; "
        "g = tf.function(lambda **x: {k: v for k, v in f(**x).items() "
        f"if k not in {list(others)}}}); "
        f"tf.saved_model.save(m, {path.name + '_2'!r}, "
        "g.get_concrete_function(**f.structured_input_signature[1]))"
    )


def functions_of(message: Any) -> dict[str, frozenset[str]]:
    """Return the functions that each signature in the content of a folder's file calls."""
    [meta] = message.meta_graphs
    library = {item.signature.name: item for item in meta.graph_def.library.function}
    known, nodes = meta.object_graph_def.concrete_functions, meta.object_graph_def.nodes
    children = nodes[0].children if nodes else ()
    signatures = {child.local_name: child.node_id for child in children}.get("signatures")
    # Nothing is known of a file that may be hostile.
    if signatures is None or not 0 <= signatures < len(nodes):
        return {}
    wrappers = {
        child.local_name: nodes[child.node_id].bare_concrete_function.concrete_function_name
        for child in nodes[signatures].children
        if 0 <= child.node_id < len(nodes)
    }
    return {
        name: frozenset(called(library[wrapper].node_def)) & known.keys()
        for name, wrapper in wrappers.items()
        if wrapper in library
    }
