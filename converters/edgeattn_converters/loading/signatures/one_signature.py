"""A SavedModel folder with one of its signatures only.

Folders for training on devices have signatures beside that of inference, which write and read
checkpoints. What is not in the content of the file cannot run.
"""

import contextlib
import tempfile
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsafeModelError
from edgeattn_converters.graphs.taken_branches import reached
from edgeattn_converters.loading.signatures.signature_inputs import functions_of
from edgeattn_converters.loading.signatures.signature_operations import (
    SAVE_A_FUNCTION,
    check_operations,
    unsupported,
)

_SIGNATURES = "signatures"
_VARIABLES = "variables"


def checked(
    path: Path, message: Any, choose: Callable[[Collection[str]], str]
) -> tuple[Any, tuple[str, ...]]:
    """Return the content of a folder's file in which every operation only computes.

    That is ``message``, without a note, or else the chosen signature of it alone, with a note about
    what is left out. ``choose`` returns one of the names of the signatures. Raises the errors of
    :func:`.signature_operations.check_operations`.
    """
    try:
        check_operations(path, message)
        return message, ()
    except UnsafeModelError as error:
        names = functions_of(message)
        if not names:
            # A module may also have a function that reads files, as that of TensorFlow's tutorial
            # on audio; no signature tells which one is for inference.
            hint = f"{error.hint} Or save the module with {SAVE_A_FUNCTION}"
            raise UnsafeModelError(error.message, hint=hint) from error
        chosen = choose(names)
        alone = with_one_signature(path, message, chosen)
        check_operations(path, alone)
    removed = ", ".join(repr(name) for name in sorted(names) if name != chosen)
    others = f"The signatures {removed} and other" if removed else "Other"
    return alone, (
        f"{others} functions of the folder are left out: they contain operations that may do more "
        "than compute.",
    )


@contextlib.contextmanager
def folder(path: Path, message: Any | None) -> Iterator[Path]:
    """The folder ``path``, or one like it with ``message`` as the content of its file."""
    if message is None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="edgeattn-") as name:
        (Path(name) / "saved_model.pb").write_bytes(message.SerializeToString())
        (Path(name) / _VARIABLES).symlink_to(path.absolute() / _VARIABLES)
        yield Path(name)


def with_one_signature(path: Path, message: Any, name: str) -> Any:
    """Return the content of a folder's file with the signature ``name`` as its only function.

    Functions that TensorFlow calls to restore objects remain, and so does what all of them call.
    ``message`` has one graph, which is that of TensorFlow 2. Raises
    :class:`UnsupportedModelError` if the content refers to objects that it does not have.
    """
    result = type(message)()
    result.CopyFrom(message)
    [meta] = result.meta_graphs
    nodes = meta.object_graph_def.nodes
    kept = _kept(nodes, name)
    absent = next((index for index in sorted(kept) if not 0 <= index < len(nodes)), None)
    if absent is not None:
        raise unsupported(path, f"is damaged: it has no object {absent}.")
    names = {called for index in kept for called in _functions_of(nodes[index])}
    library = {item.signature.name: item for item in meta.graph_def.library.function}
    roots = [library[root] for root in sorted(names & library.keys())]
    below = reached([node for item in roots for node in item.node_def], library)
    functions = {item.signature.name: item for item in (*roots, *below)}
    for index, node in enumerate(nodes):
        if index not in kept:
            _remove_functions(node)
    _remove_children(nodes, kept)
    gradients = [
        item
        for item in meta.graph_def.library.gradient
        if item.function_name in functions and item.gradient_func in functions
    ]
    # Constants that functions capture are nodes of the graph; its other nodes call functions.
    constants = [node for node in meta.graph_def.node if node.op == "Const"]
    _set(meta.graph_def.library.function, functions.values())
    _set(meta.graph_def.library.gradient, gradients)
    _set(meta.graph_def.node, constants)
    stored = meta.object_graph_def.concrete_functions
    for removed in stored.keys() - functions.keys():
        del stored[removed]
    return result


def _signatures(nodes: Any) -> Any:
    """The object that has the signatures as its children; None without one."""
    children = {child.local_name: child.node_id for child in nodes[0].children}
    return nodes[children[_SIGNATURES]] if _SIGNATURES in children else None


def _kept(nodes: Any, name: str) -> frozenset[int]:
    """The positions of the objects whose functions remain."""
    chosen = [child.node_id for child in _signatures(nodes).children if child.local_name == name]
    restoring = [
        position
        for node in nodes
        for item in node.saveable_objects.values()
        for position in (item.save_function, item.restore_function)
    ]
    return frozenset([*chosen, *restoring])


def _functions_of(node: Any) -> Collection[str]:
    """The names of the functions that an object is."""
    bare = node.bare_concrete_function.concrete_function_name
    return {*node.function.concrete_functions, *([bare] if bare else [])}


def _remove_functions(node: Any) -> None:
    """Let an object be a function without a graph, or none, in place."""
    if node.WhichOneof("kind") == "function":
        del node.function.concrete_functions[:]
    elif node.WhichOneof("kind") == "bare_concrete_function":
        node.user_object.identifier = "_generic_user_object"
        node.user_object.version.producer = node.user_object.version.min_consumer = 1


def _remove_children(nodes: Any, kept: Collection[int]) -> None:
    """Remove the other signatures from the object that has them, in place."""
    signatures = _signatures(nodes)
    _set(signatures.children, [child for child in signatures.children if child.node_id in kept])


def _set(field: Any, values: Any) -> None:
    """Set a repeated field, whose values may be from itself."""
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del field[:]
    field.extend(copies)
