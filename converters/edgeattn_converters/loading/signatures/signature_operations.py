"""The operations in the graphs of SavedModels: which of them only compute."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeattn.errors import UnsafeModelError, UnsupportedModelError
from edgeattn_converters.graphs.taken_branches import called_by, reached, with_taken_branches
from edgeattn_converters.loading.formats.saved_model import SAVE_AS_FILE
from edgeattn_converters.loading.signatures.signature_tables import problem_and_step

STRING = 7  # DT_STRING of tensorflow.DataType
# Operations with a state that stays in the graph: variables, control flow, and random numbers.
_STATEFUL = re.compile(
    r"(Stateful|Stateless)?PartitionedCall|(Stateless)?(While|If|Case)|VarHandleOp|"
    r"ReadVariableOp|ResourceGather(Nd)?|Assign(Add|Sub)?VariableOp|VarIsInitializedOp|"
    r"NoOp|Placeholder|Assert|CheckNumerics(V2)?|Random\w+|TruncatedNormal|Multinomial|"
    r"Tensor(List|Array)\w*|CudnnRNN\w*|Rng(ReadAnd)?Skip|"
    # Of an iterator that other operations create; folders contain the step of Normalization.adapt.
    r"IteratorGetNext"
)
# Those with a generator of random numbers change its variable.
_ASSIGNMENT = re.compile(r"Assign(Add|Sub)?VariableOp|Rng(ReadAnd)?Skip")
# They have no state either, but run code, open files, or belong to other devices.
_OUTSIDE = re.compile(
    r"\w*PyFunc\w*|.*(File|Files|Filename)\w*|(Save|Restore)\w*|_\w+|TRTEngineOp|Tpu\w*|TPU\w*|"
    r"Xla\w*|RemoteCall|SymbolicGradient"
)
# Their strings are texts, or contents of files, not names. Servers have signatures that decode
# them, and layers such as Hashing are part of an exported graph.
_OF_CONTENTS = re.compile(
    r"Decode(Raw|PaddedRaw|Jpeg|AndCropJpeg|Png|Bmp|Image|Base64|Wav|CSV|JSONExample)|"
    r"StringToNumber|StringLower|StringUpper|StringStrip|StringLength|Substr|"
    r"StringToHashBucket(Fast|Strong)?|StringSplit(V2)?|StringJoin|StringNGrams|ReduceJoin|AsString|"
    r"(Static)?Regex(Replace|FullMatch)|Unicode(Decode|DecodeWithOffsets|Transcode|Script)|"
    r"ParseExample(V2)?|ParseSingleExample|ParseTensor"
)
# The functions that write and read checkpoints; nothing calls them here.
_SAVER = re.compile(r"__inference__traced_(save|restore)_\d+")
_SAVER_NODES = frozenset({"saver_filename", "StatefulPartitionedCall", "NoOp"})
# Loops that TensorFlow 1 builds; neither TFLite nor functions of TensorFlow 2 have them.
_LOOPS_OF_TENSORFLOW_1 = frozenset({"Enter", "RefEnter"})
# Not all builds of TensorFlow have their kernels, which are for GPUs.
_OF_CUDNN = re.compile(r"CudnnRNN\w*")
_ON_CPU = "on a machine without a GPU, or after: export CUDA_VISIBLE_DEVICES=-1"
_SAVE_AGAIN = "Save its signature with TensorFlow 2, by the program in docs/loading.md."
_REBUILD = "Convert the Keras file that the folder was exported from."
SAVE_A_FUNCTION = (
    "a function, f or __call__, of inputs of a known shape: tf.saved_model.save(module, folder, "
    "signatures=tf.function(module.f).get_concrete_function(tf.TensorSpec([None, 3], tf.float32)))"
    ", with the shape of its inputs in place of [None, 3]."
)


def unsupported(path: Path, problem: str, hint: str = SAVE_AS_FILE) -> UnsupportedModelError:
    """Return the error about a folder."""
    return UnsupportedModelError(f"The SavedModel {path.name} {problem}", hint=hint)


def check_operations(path: Path, message: Any) -> None:
    """Raise an error unless every operation that may run only computes.

    ``message`` is the content of the file. Raises :class:`UnsafeModelError` for an operation that
    may do more, and :class:`UnsupportedModelError` for other contents that are not supported.
    """
    if len(message.meta_graphs) != 1:
        raise unsupported(path, f"has {len(message.meta_graphs)} graphs.")
    [meta] = message.meta_graphs
    if not meta.HasField("object_graph_def"):
        raise unsupported(path, "was written by TensorFlow 1.", _SAVE_AGAIN)
    beside = problem_and_step(meta)
    if beside is not None:
        raise unsupported(path, *beside)
    functions = {item.signature.name: item for item in meta.graph_def.library.function}
    savers = {name for name in functions if _SAVER.fullmatch(name)}
    graph_nodes = [node for node in meta.graph_def.node if node.op not in _SAVER_NODES]
    needed = set(called(graph_nodes)).union(
        *(called(item.node_def) for name, item in functions.items() if name not in savers)
    )
    for node in meta.object_graph_def.nodes:
        needed.update(node.function.concrete_functions)
        needed.add(node.bare_concrete_function.concrete_function_name)
    nodes = [*graph_nodes]
    for name, item in functions.items():
        if name not in savers or name in needed:
            nodes.extend(item.node_def)
    for node in nodes:
        if not _only_computes(node.op):
            raise UnsafeModelError(
                f"Refused {path.name}: its graph contains the operation {node.op!r} "
                f"({node.name!r}), which may do more than compute.",
                hint=_REBUILD,
            )
    loop = next((node.name for node in nodes if node.op in _LOOPS_OF_TENSORFLOW_1), None)
    if loop is not None:
        raise unsupported(
            path,
            f"has a loop of TensorFlow 1 in its graph ({loop!r}).",
            "Build the graph again after tf.compat.v1.enable_control_flow_v2() and save it; that "
            "builds loops of TensorFlow 2.",
        )


def called(nodes: Any) -> Iterator[str]:
    """Return the names of the functions that nodes refer to."""
    for node in nodes:
        yield from (item.name for item in called_by(node))


def _only_computes(name: str) -> bool:
    from tensorflow.python.framework import op_def_registry

    if _STATEFUL.fullmatch(name):
        return True
    definition = op_def_registry.get(name)
    if definition is None or definition.is_stateful or _OUTSIDE.fullmatch(name):
        return False
    if _OF_CONTENTS.fullmatch(name):
        return True
    # The names of files and of programs are strings.
    arguments = [*definition.input_arg, *definition.output_arg]
    return all(argument.type != STRING for argument in arguments)


def without_assignments(path: Path, name: str, function: Any) -> Any:
    """Return a signature without branches that assign to a variable and never run.

    Such as those of ``WeightNormalization``, whose weights are initialized. Raises
    :class:`UnsupportedModelError` if it assigns to a variable then: artifacts keep nothing between
    calls.
    """
    if _assignment(function) is None:
        return function
    # Without assignments, the variables that decide keep the values that they have now.
    function = with_taken_branches(function)
    assigned = _assignment(function)
    if assigned is not None:
        raise unsupported(
            path,
            f"changes a variable in its signature {name!r} ({assigned!r}), as layers do that count "
            "calls, keep a state or draw random numbers: its outputs may depend on earlier calls.",
            "Export a model whose outputs depend on its inputs only: without that layer, or with "
            "its state as an input and an output.",
        )
    return function


def without_gpus(path: Path, name: str, function: Any) -> Any:
    """Return a signature without branches for GPUs that never run.

    Functions that nothing calls do not matter, such as the LSTM for GPUs that TensorFlow stores
    beside the one that a graph calls. ``function`` has no assignments. Raises
    :class:`UnsupportedModelError` if it needs an operation that only GPUs compute.
    """
    if _operation_of_gpus(function) is None:
        return function
    function = with_taken_branches(function)
    found = _operation_of_gpus(function)
    if found is None:
        return function
    advice = "Convert the .keras or .h5 file of the model"
    if _OF_CUDNN.fullmatch(found):
        advice += ", whose LSTM and GRU layers are the same on every device"
    raise unsupported(
        path,
        f"contains {found} in its signature {name!r}, an operation that TensorFlow computes on "
        "GPUs only.",
        f"{advice}. If there is none, export the model again {_ON_CPU}",
    )


def _operation_of_gpus(function: Any) -> str | None:
    """Return an operation in a signature, or in what it calls, that only GPUs compute."""
    graph = function.graph.as_graph_def()
    library = {item.signature.name: item for item in graph.library.function}
    nodes = [*graph.node, *(n for item in reached(graph.node, library) for n in item.node_def)]
    return next(filter(_needs_gpu, dict.fromkeys(node.op for node in nodes)), None)


def _needs_gpu(name: str) -> bool:
    from tensorflow.python.framework import kernels

    if _OF_CUDNN.fullmatch(name):
        return True
    devices = {item.device_type for item in kernels.get_registered_kernels_for_op(name).kernel}
    return devices == {"GPU"}


def _assignment(function: Any) -> str | None:
    """Return the name of an operation that assigns to a variable; None if there is none."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(node for item in graph.library.function for node in item.node_def)]
    return next((node.name for node in nodes if _ASSIGNMENT.fullmatch(node.op)), None)
