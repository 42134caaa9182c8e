"""The loss of the labels."""

from collections.abc import Callable, Mapping
from typing import Any

from edgeattn.errors import UsageError
from edgeattn.printable import counted
from edgeattn.tensors import Tensors
from edgeattn_converters.quantization_aware.options import FineTuningOptions


def label_loss(
    model: Any, names: list[str], options: FineTuningOptions, labels: Tensors
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], Any] | None:
    """The sum of the losses of all outputs, from outputs and labels by name; None without labels.

    Raises :class:`UsageError` if there are labels and no loss, or if the loss is unknown.
    """
    if not labels:
        if options.loss is not None:
            raise UsageError(
                "A loss of labels was passed, but no labels.", hint="Pass the labels as y."
            )
        return None
    loss = options.loss if options.loss is not None else getattr(model, "loss", None)
    if loss is None:
        raise UsageError(
            "Labels were passed, but no loss.",
            hint='Pass one, for example FineTuningOptions(loss="mse").',
        )
    functions = {name: _function(item) for name, item in _by_output(loss, names).items()}

    def total(outputs: Mapping[str, Any], targets: Mapping[str, Any]) -> Any:
        import keras

        return sum(
            keras.ops.mean(function(targets[name], outputs[name]))
            for name, function in functions.items()
        )

    return total


def _by_output(loss: Any, names: list[str]) -> dict[str, Any]:
    """The loss of each output that has one."""
    if isinstance(loss, Mapping):
        unknown = [name for name in loss if name not in names]
        if unknown:
            raise UsageError(
                f"The model has no output {unknown[0]!r} for a loss.",
                hint=f"Use {', '.join(names)}.",
            )
        items = dict(loss)
    elif isinstance(loss, list | tuple):
        if len(loss) != len(names):
            raise UsageError(
                f"Received {counted(len(loss), 'loss', 'losses')} for "
                f"{counted(len(names), 'output')}.",
                hint="Pass one for each output, or None for outputs without labels.",
            )
        items = dict(zip(names, loss, strict=True))
    else:
        items = dict.fromkeys(names, loss)
    return {name: item for name, item in items.items() if item is not None}


def _function(loss: Any) -> Callable[[Any, Any], Any]:
    import keras

    try:
        function: Callable[[Any, Any], Any] = keras.losses.get(loss)
    except ValueError as error:
        raise UsageError(
            f"Keras has no loss {loss!r}.", hint="Use the name of a loss in keras.losses."
        ) from error
    return function
