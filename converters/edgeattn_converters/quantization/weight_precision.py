"""The precision in which each weight is stored."""

from collections.abc import Callable, Iterable

from edgeattn.errors import UsageError
from edgeattn.tensors import Array
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.quantization.candidates import Candidate
from edgeattn_converters.quantization.layer_weights import LayerWeights, key_of, owns
from edgeattn_converters.quantization.quantized_model import ModelIO

# The precision of a constant, one of ``edgeattn_converters.recipes.PRECISIONS``.
PrecisionOf = Callable[[Array], str]
# Whether a constant is to be stored in some precision.
WeightFilter = Callable[[Array], bool]


def layer_precision(
    precision: Iterable[tuple[str, str]], layers: Iterable[LayerWeights], default: str
) -> PrecisionOf:
    """The precision of a constant's layer, by layer name, or else the ``default``.

    Raises :class:`UsageError` if a name is not that of a layer with large weights.
    """
    requested = dict(precision)
    if not requested:
        return lambda value: default
    by_name = {layer.name: layer for layer in layers}
    for name in requested:
        if name not in by_name:
            raise UsageError(
                f"The model has no layer {name!r} with weights to quantize.",
                hint=f"Choose from {', '.join(by_name)}.",
            )
    owners = [(by_name[name], how) for name, how in requested.items()]

    def precision_of(value: Array) -> str:
        return next((how for layer, how in owners if owns(layer, value)), default)

    return precision_of


def candidate_precision(
    candidate: Candidate,
    io: ModelIO,
    options: QuantizationOptions,
    default: str,
    upstream: set[bytes],
) -> PrecisionOf:
    """The precision of a constant in ``candidate``.

    ``default`` applies to layers without a precision of their own, ``upstream`` are the keys of the
    constants that the attention scores depend on.
    """
    by_layer = layer_precision(options.precision, io.layers, default)
    if not candidate.upstream:
        return by_layer
    recurrent = [layer for layer in io.layers if layer.recurrent]

    def precision_of(value: Array) -> str:
        usual = by_layer(value)
        if not usual.startswith("int8") or key_of(value) not in upstream:
            return usual
        is_float16 = candidate.float16 == "all" or (
            candidate.float16 == "recurrent" and any(owns(layer, value) for layer in recurrent)
        )
        return "float16" if is_float16 else "int8_weights"

    return precision_of


def stored_in(precision_of: PrecisionOf, *precisions: str) -> WeightFilter:
    """The constants of one of these precisions."""
    return lambda value: precision_of(value) in precisions
