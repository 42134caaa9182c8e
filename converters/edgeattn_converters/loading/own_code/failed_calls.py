"""Errors about layers whose call fails in Keras 3, which name the class of the user.

Layers of Keras, such as RNN, Bidirectional and TimeDistributed, may contain classes of the user.
"""

import re
import traceback
from collections.abc import Iterator
from typing import Any

from edgeattn.printable import enumerated
from edgeattn_converters.loading import error_text
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.own_code import undefined_names
from edgeattn_converters.loading.own_code.own_classes import is_own_class

_KERAS_3 = "Keras 3: https://keras.io/guides/migrating_to_keras_3"
# "CTGRU.call: ", with which the reason of an error begins.
_CALL = re.compile(r"(\w+)\.call: ")


def failed_call(layer: Any, failure: BaseException) -> Keras3ModelError:
    """Return the error about a layer whose call raised ``failure``."""
    import keras

    own = is_own_class(type(layer))
    failed = _failed_classes(layer, failure)
    title = repr(layer.name) if own else f"{layer.name!r} ({type(layer).__name__})"
    if own:
        title += f" of your class {type(layer).__name__}"
    elif failed:
        title += f" with your {'class' if len(failed) == 1 else 'classes'} {enumerated(failed)}"
    hint = f"Change {enumerated(failed, 'or')} so that it runs in {_KERAS_3}"
    if not failed:
        hint = f"Build the model in {_KERAS_3}, load its weights and save it: model.save('m.keras')"
    return Keras3ModelError(
        f"Layer {title} fails in Keras {keras.__version__}: "
        f"{type(failure).__name__}: {error_text.reason(failure)}",
        hint=undefined_names.hint(failure) or hint,
    )


def _failed_classes(layer: Any, failure: BaseException) -> list[str]:
    """The class of the user, in a layer, whose call failed; if it is not known, that of the layer,
    or all of them inside a layer of Keras."""
    own = [type(item) for item in (layer, *_parts(layer)) if is_own_class(type(item))]
    names = list(dict.fromkeys(cls.__name__ for cls in own))
    called = _CALL.match(error_text.reason(failure))
    if called and called[1] in names:
        return [called[1]]
    last = [cls.__name__ for cls in _of_frames(failure) if cls in own][-1:]
    return last or (names[:1] if is_own_class(type(layer)) else names)


def _parts(layer: Any) -> Iterator[Any]:
    """The layers inside a layer, and cells, which need not be layers."""
    import keras

    yield from layer._flatten_layers(include_self=False)
    for part in layer._flatten_layers():
        if isinstance(part, keras.layers.RNN):
            yield part.cell
            yield from getattr(part.cell, "cells", ())


def _of_frames(failure: BaseException) -> Iterator[type]:
    """The classes whose methods led to an error, the innermost last."""
    cause: BaseException | None = failure
    while cause is not None:
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            if "self" in frame.f_locals:
                yield type(frame.f_locals["self"])
        cause = cause.__cause__ or cause.__context__
