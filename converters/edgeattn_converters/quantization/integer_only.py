"""Files without any float tensor: what prevents one, and what would cure it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgeattn.errors import ConversionError
from edgeattn.file_structure.contents import FileContents
from edgeattn.printable import enumerated
from edgeattn.runners.micro_operators import resolver_method
from edgeattn.schemes import MICRO
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.integer_forms import LOOKING, SUPPORTED, has_integer_form

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
FLOATS = ("FLOAT16", "FLOAT32", "FLOAT64", "BFLOAT16")
_LOOP = (
    "use LSTM, GRU or SimpleRNN, whose steps are written out, or write the steps of your layer as "
    "a loop in Python"
)
_SOFTMAX = "compute shares with a softmax, not with exponentials and a quotient"
# By operator type, what to change in the model or in the command.
CURES: Mapping[str, str] = {
    "WHILE": _LOOP,
    "EXP": _SOFTMAX,
    "DIV": (
        "multiply by a constant instead, compute shares with a softmax, and averages of valid "
        "steps with GlobalAveragePooling1D"
    ),
    "GELU": "use the activation relu or tanh",
    "ELU": "use the activation relu or tanh",
    "SQRT": "take the root outside of the model, or use an activation without one",
    "CUMSUM": "multiply by a triangular matrix instead of summing up",
    "CAST": 'declare inputs of tokens with dtype="int32", and pass other integers as real numbers',
    "ARG_MAX": "return the values, and find the largest outside of the model",
    "ARG_MIN": "return the values, and find the smallest outside of the model",
    "LOG": "apply the logarithm outside of the model",
    "POW": "replace powers by products",
    "SIN": "compute the wave outside of the model and pass it as an input",
    "COS": "compute the wave outside of the model and pass it as an input",
}
_INPUTS = (
    "it has an integer form, but not with these inputs: change the operators before it, or replace "
    "the layer"
)
_OTHER = "replace the layer by one that needs sums, products, tanh, sigmoid, relu or softmax only"


@dataclass(frozen=True)
class FloatOperator:
    """An operator that reads or computes float tensors; ``name`` is the name of its output."""

    kind: str
    name: str

    @property
    def cure(self) -> str:
        return cure_of(self.kind)

    def __str__(self) -> str:
        return f"{self.kind} ({self.name}): {self.cure}"


def cure_of(kind: str) -> str:
    """What to change in a model so that it needs no operator of this type in float32."""
    return CURES.get(kind, _INPUTS if kind in SUPPORTED | LOOKING else _OTHER)


def float_operators(file: TFLiteFile) -> Iterator[FloatOperator]:
    """Every operator with a float tensor that prevents integers, in loops too.

    Conversions are listed only if there are no others, and operators in a loop only if they have no
    integer form: the loop prevents the others.
    """
    conversions = []
    others = False
    for graph, operator, kind in file.operators():
        indices = [int(i) for i in (*operator.inputs, *operator.outputs) if int(i) >= 0]
        tensors = [graph.tensors[index] for index in indices]
        if not any(file.dtype(tensor) in FLOATS for tensor in tensors):
            continue
        if graph is not file.main and has_integer_form(file, graph, operator):
            others = True
            continue
        name = file.name(graph.tensors[int(operator.outputs[0])]).split(";")[0]
        if kind in CONVERSIONS:
            conversions.append(FloatOperator(kind, name))
        else:
            others = True
            yield FloatOperator(kind, name)
    if not others:
        yield from conversions


def require_no_floats(contents: FileContents) -> None:
    """Raise :class:`ConversionError` if a file has a float tensor, of an operator or not.

    An input that is an output, for example, is read by no operator.
    """
    floats = {name.lower() for name in FLOATS}
    names = [item.name for item in (*contents.inputs, *contents.outputs) if item.dtype in floats]
    kinds = {*contents.details["activations"], *contents.details["weight_bytes"]} & floats
    if kinds:
        where = f": {', '.join(dict.fromkeys(names))}" if names else ""
        raise ConversionError(
            "Integers only are not possible: a tensor stays "
            f"{enumerated(sorted(kinds), 'or')}{where}.",
            hint="Omit --integer-only, or remove inputs and outputs that no operator computes.",
        )


def require_micro_operators(file: TFLiteFile) -> None:
    """Raise :class:`ConversionError` if Lite Micro lacks operators, with all of their names."""
    lacking = [
        FloatOperator(kind, file.name(graph.tensors[int(operator.outputs[0])]).split(";")[0])
        for graph, operator, kind in file.operators()
        if resolver_method(kind) is None
    ]
    if lacking:
        one = len(lacking) == 1
        raise ConversionError(
            f"{MICRO} lacks {len(lacking)} {'operator' if one else 'operators'} of the model. "
            + "; ".join(map(str, lacking))
            + ".",
            hint="Change these layers, or convert for another target.",
        )


def require_integers(scheme: str, blockers: Sequence[FloatOperator]) -> None:
    """Raise :class:`ConversionError` if operators keep a file from computing in integers only."""
    if blockers:
        one = len(blockers) == 1
        raise ConversionError(
            f"{scheme} is not possible in integers only: {len(blockers)} "
            f"{'operator prevents' if one else 'operators prevent'} it. "
            + "; ".join(map(str, blockers))
            + ".",
            hint="Omit --integer-only to keep these operators in float32.",
        )
