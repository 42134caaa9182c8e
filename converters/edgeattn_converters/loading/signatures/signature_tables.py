"""Tables and files beside the graph of a SavedModel, and the errors that name them."""

import re
from collections.abc import Iterator
from typing import Any

from edgeattn.printable import enumerated

# The operation, and the scopes that TensorFlow's tables and Keras' layers add in front of it:
# mean_model/emb_model/integer_lookup/hash_table_Lookup/LookupTableFindV2
_LOOKUP = re.compile(r"LookupTable(Find|Size)(V2)?")
_OF_TABLES = re.compile(r".+_(Lookup|Size|lookup_table_\w+)(_\d+)?|LookupTable(Find|Size)\w*")
_SAVER = re.compile(r"__inference__(traced_(save|restore)|creator|initializer|destroyer)_\d+")
_SAVED_LAYER = "A functional or Sequential model that looks up values directly behind its inputs"
_MOST = 3


def problem_and_step(meta: Any) -> tuple[str, str] | None:
    """Return what a meta graph has beside its graph, and what to do; None if it has nothing.

    The first is the end of a sentence that begins with the folder, the second one or more
    sentences.
    """
    kinds = {node.WhichOneof("kind") for node in meta.object_graph_def.nodes}
    if not (kinds & {"asset", "resource"} or meta.asset_file_def):
        return None
    lookups = _lookups(meta)
    if lookups is not None:
        attributes = _attributes(meta, "resource")
        names = lookups or attributes
        where = f": {_shortened(names)}" if names else ""
        return (
            f"looks up values in tables, which no edge runtime supports{where}.",
            "Look up the values outside of the model, and export a model that takes their "
            "indices: in a class of yours, call() must take the indices instead of the values. "
            f"{_SAVED_LAYER} can be saved as one file instead: model.save('model.keras')",
        )
    files = [f"assets/{item.filename}" for item in meta.asset_file_def]
    names = [*files, *_attributes(meta, "resource")]
    where = f": {_shortened(names)}" if names else ""
    return (
        f"has files or resources beside its graph{where}.",
        "Save the model without them: its signature must compute from its inputs and variables "
        "only. What reads the files belongs in the program on the device.",
    )


def _shortened(names: list[str]) -> str:
    shown = [repr(name) for name in names[:_MOST]]
    if len(names) > _MOST:
        shown.append(f"{len(names) - _MOST} more")
    return enumerated(shown)


def _lookups(meta: Any) -> list[str] | None:
    """Return the scopes of layers and functions that look up values; None if none does."""
    scopes, has_lookups = set(), False
    for function in meta.graph_def.library.function:
        if _SAVER.fullmatch(function.signature.name):
            continue
        for node in function.node_def:
            if _LOOKUP.fullmatch(node.op):
                has_lookups = True
                scopes.add(_scope(node.name))
    has_lookups = has_lookups or any(_LOOKUP.fullmatch(n.op) for n in meta.graph_def.node)
    if not has_lookups:
        return None
    # Functions of single layers repeat the lookups of the model, without its scope.
    return sorted(
        scope
        for scope in scopes
        if scope and not any(other.endswith(f"/{scope}") for other in scopes)
    )


def _scope(name: str) -> str:
    parts = name.split("/")
    while parts and _OF_TABLES.fullmatch(parts[-1]):
        parts.pop()
    return "/".join(parts)


def _attributes(meta: Any, kind: str) -> list[str]:
    """Return the attributes of the saved object that are of a kind, such as ``encoder.table``."""
    nodes = meta.object_graph_def.nodes
    return sorted(
        path
        for number, path in _paths(nodes)
        if nodes[number].WhichOneof("kind") == kind and not path.startswith("_")
    )


def _paths(nodes: Any) -> Iterator[tuple[int, str]]:
    """Yield the number of every object, and the attributes that lead to it from the first."""
    pending, seen = [(0, "")], {0}
    while pending:
        number, path = pending.pop(0)
        yield number, path
        for child in nodes[number].children if len(nodes) else ():
            if child.node_id not in seen:
                seen.add(child.node_id)
                name = f"{path}.{child.local_name}" if path else child.local_name
                pending.append((child.node_id, name))
