"""Build the Keras 3 model of a migrated configuration, with zeros as weights."""

import contextlib
import copy
import functools
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgeattn.errors import EdgeattnError, UnsafeModelError, UnsupportedModelError
from edgeattn_converters.keras_classes import operations_of
from edgeattn_converters.loading import error_text, lora
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.directions import shapes_of_both_directions, without_shapes_inside
from edgeattn_converters.loading.eras import implicit_masks
from edgeattn_converters.loading.keras_3_failures import Keras3ModelError
from edgeattn_converters.loading.keras_tensors import keras_tensors
from edgeattn_converters.loading.own_code import (
    own_files,
    own_functions,
    subclassed,
    undefined_names,
)
from edgeattn_converters.loading.own_code.custom_objects import for_keras
from edgeattn_converters.loading.own_code.failed_calls import failed_call
from edgeattn_converters.loading.own_code.own_classes import is_own_class
from edgeattn_converters.loading.safety.size_limits import max_values

# Keras formats parts of its messages as bold.

_KERAS_3 = "Keras 3: https://keras.io/guides/migrating_to_keras_3"


def reset_names() -> None:
    """Number the names that Keras gives to layers as in a new process: dense, dense_1, ..."""
    from keras.src.utils import naming

    naming.reset_uids()


def build_model(
    file: ModelFile, config: dict[str, Any], custom_objects: Mapping[str, Any], weights: int
) -> Any:
    """The model of a migrated config, whose weights are still zeros.

    ``weights`` is the number of values that the file stores. Raises :class:`UnsafeModelError` if
    the config declares more, unless the file is trusted, and :class:`UnsupportedModelError`, with
    Keras' own reason, if Keras cannot build the model.
    """
    import keras

    import edgeattn.layers  # noqa: F401  registers Attention
    from edgeattn_converters.loading.migrate import (  # noqa: F401
        adapted_discretization,
        causal_convolution,
        legacy_mask_layers,
        legacy_upsampling,
        locally_connected,
        normalized_axes,
        registered_objects,
        spectrogram,
        theano_padding,
        time_distributed,
        transposed_layers,
    )

    budget = None if file.trusted else weights
    try:
        # Keras warns about masks that end, which is intended here.
        with registered_objects.allocating_at_most(budget), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with (
                _shared_as_stored(),
                own_functions.found_by_name(custom_objects),
                shapes_of_both_directions(),
                lora.alpha_of_config(),
            ):
                # Keras removes items from the config.
                model = keras.saving.deserialize_keras_object(
                    without_shapes_inside(copy.deepcopy(config)),
                    custom_objects=for_keras(custom_objects),
                    safe_mode=True,
                )
            _require_built(model, file)
            if not file.trusted:
                _check_sizes(model, file)
            subclassed.create_weights(model, {}, [])
            build_sublayers(model)
            return model
    except EdgeattnError:
        raise
    except Exception as error:
        hint = (
            "If the model uses classes of your own, also one with a name that Keras has, pass them:"
            " --custom-objects FILE.py"
        )
        if custom_objects:
            hint = f"If the error is in a class of yours, change it so that it runs in {_KERAS_3}"
        if place := own_files.last_call(error):
            hint = f"Change {place} so that it runs in {_KERAS_3}"
        hint = undefined_names.hint(error) or hint
        raise Keras3ModelError(
            f"Keras cannot build the model in {file.path.name}: {root_cause(error)}", hint=hint
        ) from error


@contextlib.contextmanager
def _shared_as_stored() -> Iterator[None]:
    """Let layers that share another one in the file share it in the model, and no others.

    Keras also lets copies share their parts that the constructor of a class makes of its layer:
    ``Bidirectional.from_config(layer.get_config())``.
    """
    from keras.src.backend.common import global_state
    from keras.src.saving.serialization_lib import ObjectSharingScope

    with ObjectSharingScope():
        # Of objects that are serialized.
        global_state.set_global_attribute("shared_objects/id_to_config_map", None)
        yield


def build_sublayers(model: Any) -> None:
    """Trace layers of the user, which builds the layers inside them that Keras has left unbuilt.

    Keras does not trace the call of a layer that was saved as built or defines
    ``compute_output_shape``, so layers that this call would build have no weights yet.

    Raises :class:`UnsupportedModelError` if the call fails.
    """
    import keras
    from keras.src.backend import compute_output_spec

    for layer in model._flatten_layers():
        nodes = getattr(layer, "_inbound_nodes", ())
        inner = layer._flatten_layers(include_self=False)
        if not nodes or not (is_own_class(type(layer)) or not all(item.built for item in inner)):
            continue
        arguments = nodes[0].arguments
        try:
            named = _accepted_by(layer, arguments.kwargs) | _masks(layer, arguments)
            with implicit_masks.passed_by(type(layer)):
                args, named = keras.tree.map_structure(
                    functools.partial(_autocast, layer), (arguments.args, named)
                )
                call = functools.partial(compute_output_spec, _without_result(layer.call))
                try:
                    call(*args, **named)
                except Exception:
                    # Code may need the number of samples, as keras.ops.zeros((x.shape[0], 4)).
                    if all(tensor.shape[:1] != (None,) for tensor in nodes[0].input_tensors):
                        raise
                    args, named = keras.tree.map_structure(of_known_batch, (args, named))
                    call(*args, **named)
        except Exception as error:
            # With a free axis the call may fail, and with its length not.
            if any(None in tensor.shape[1:] for tensor in nodes[0].input_tensors):
                continue
            raise failed_call(layer, error) from error


def _autocast(layer: Any, value: Any) -> Any:
    """A symbolic tensor of the type in which a layer gets it from Keras, as in half precision."""
    import keras
    from keras.src.backend import get_keras_mask, is_float_dtype, set_keras_mask

    if not isinstance(value, keras.KerasTensor) or not getattr(layer, "autocast", False):
        return value
    if not is_float_dtype(value.dtype) or value.dtype == layer.compute_dtype:
        return value
    cast = keras.KerasTensor(value.shape, layer.compute_dtype, name=value.name)
    if get_keras_mask(value) is not None:
        set_keras_mask(cast, get_keras_mask(value))
    return cast


def of_known_batch(value: Any) -> Any:
    """A symbolic tensor with a number of samples if that was free; other values unchanged."""
    import keras

    if not isinstance(value, keras.KerasTensor) or value.shape[:1] != (None,):
        return value
    return keras.KerasTensor(
        (subclassed.KNOWN_BATCH, *value.shape[1:]), value.dtype, name=value.name
    )


def _without_result(call: Callable[..., Any]) -> Callable[..., None]:
    """Return a call whose result may have a shape that TensorFlow does not know while tracing."""

    def called(*args: Any, **kwargs: Any) -> None:
        call(*args, **kwargs)

    return called


def _masks(layer: Any, arguments: Any) -> dict[str, Any]:
    """Return the masks that Keras passes to the call of a layer beside the arguments of a program.

    Keras 3 passes the mask of the only argument with tensors as ``mask``, or those of several, such
    as ``query``, as ``query_mask``. Keras 2 passes that of the first one as ``mask``.
    """
    import keras
    from keras.src.backend import get_keras_mask

    signature = inspect.signature(layer.call)
    in_place = signature.bind_partial(*arguments.args).arguments
    given = {**in_place, **_accepted_by(layer, arguments.kwargs)}
    masks = {
        name: keras.tree.map_structure(get_keras_mask, value)
        for name, value in given.items()
        if keras_tensors(value)
    }
    if not masks:
        return {}
    passed = {"mask": next(iter(masks.values()))}
    if len(masks) > 1 and not implicit_masks.are_passed_by(type(layer)):
        passed = {f"{name}_mask": mask for name, mask in masks.items()}
    return {
        name: mask
        for name, mask in passed.items()
        if name in signature.parameters and name not in in_place and given.get(name) is None
    }


def _accepted_by(layer: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """``kwargs`` without ``training`` and its like if ``layer.call`` has no such argument.

    So does Keras when it calls the layer.
    """
    accepted = inspect.signature(layer.call).parameters
    return {k: v for k, v in kwargs.items() if k not in layer._call_context_args or k in accepted}


def root_cause(error: BaseException) -> str:
    """Return the first error in one line; Keras nests errors and appends configs."""
    return f"{type(error).__name__}: {error_text.reason(error)}"


def _require_built(model: Any, file: ModelFile) -> None:
    import keras

    if not isinstance(model, keras.Model):
        raise UnsupportedModelError(
            f"{file.path.name} contains a {type(model).__name__}, not a model.",
            hint="Save the model instead of one of its layers: model.save('model.keras')",
        )
    if not model.built:
        hint = "Add an Input layer (or input_shape) to the model and save it again."
        raise UnsupportedModelError(
            f"The model in {file.path.name} has no input shape.",
            hint=subclassed.NO_SHAPE if subclassed.is_subclassed(model) else hint,
        )


def _check_sizes(model: Any, file: ModelFile) -> None:
    """Raise :class:`UnsafeModelError` if a layer returns more values than any model needs.

    A few numbers in a file, such as the factors of several UpSampling layers, must not fill the
    memory of what computes with the model.
    """
    inputs = [
        math.prod(axis or 1 for axis in tensor.shape[1:])
        for tensor in getattr(model, "inputs", None) or ()
    ]
    limit = max_values(max(inputs, default=0))
    for part in model._flatten_layers():
        for operation in (part, *operations_of(part)):
            for node in getattr(operation, "_inbound_nodes", ()):
                for tensor in node.output_tensors:
                    if math.prod(axis or 1 for axis in tensor.shape[1:]) > limit:
                        axes = ", ".join(
                            "?" if axis is None else str(axis) for axis in tensor.shape
                        )
                        raise UnsafeModelError(
                            f"Refused at {operation.name!r}: its output ({axes}) has more than "
                            f"{limit} values for a sample.",
                            hint=f"If you know this file and trust it, pass --trust {file.sha256}",
                        )


def accepted_arguments(class_name: str) -> frozenset[str] | None:
    """Return the constructor arguments of a Keras 3 layer class, None for no such class."""
    import keras

    cls = getattr(keras.layers, class_name, None)
    if not inspect.isclass(cls):
        return None
    names: set[str] = set()
    for parent in cls.__mro__:
        if "__init__" not in vars(parent):
            continue
        parameters = inspect.signature(vars(parent)["__init__"]).parameters
        names |= set(parameters)
        passes_on = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
        if parent is keras.layers.Layer or not passes_on:
            break
    if class_name == "InputLayer":
        names -= {"trainable", "autocast", "activity_regularizer", "kwargs"}
    return frozenset(names - {"self", "args", "kwargs"})
