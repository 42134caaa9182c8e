"""Models of the user's functions, run as programs for the Keras that saved their weights."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgeattn.errors import UnsupportedModelError, UsageError
from edgeattn.printable import SINCE_TF_KERAS, enumerated
from edgeattn_converters.loading import config_inspection, error_text, saved_layout
from edgeattn_converters.loading.architecture import function_model
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.build import build_sublayers, reset_names
from edgeattn_converters.loading.eras import (
    batch_products,
    implicit_masks,
    mask_comparison,
    original_keras,
)
from edgeattn_converters.loading.legacy import argument_types, legacy_layers
from edgeattn_converters.loading.legacy.legacy_program import Program
from edgeattn_converters.loading.migrate import built_layers
from edgeattn_converters.loading.own_code import (
    classes_of_keras_2,
    outputs_of_calls,
    own_layers,
    values_of_build,
)
from edgeattn_converters.loading.weights import tracking_order
from edgeattn_converters.loading.weights.weights_file import open_weights

# The version that stands for files of Keras 1 that do not contain it.
_KERAS_1 = (1, 0)
_UNCLEAR = (
    "{} does not contain its Keras version. The layers have the weights that Keras 3 assigns; "
    "Keras 2 would assign others. If Keras 2 or tf_keras saved it, the outputs are wrong: save the "
    "weights as .h5, model.save_weights('model.h5')."
)


@dataclass(frozen=True)
class Built:
    """A model that the user's function returned, without its weights.

    Attributes:
        file: the file of the weights, with its version.
        model: the model.
        program: what the calls of the function showed.
        build: builds the model again.
        created: what the function created, see :func:`.values_of_build.recorded`.
    """

    file: ModelFile
    model: Any
    program: Program
    build: Callable[[], Any]
    created: list[Any]

    def with_trained_values(self) -> Any:
        """Return a model with the trained values; see :func:`.values_of_build.with_trained`."""
        version = config_inspection.version_numbers(self.file.keras_version)
        in_graph = classes_of_keras_2.computes_in_graph(self.file.keras_version, version)
        return values_of_build.with_trained(self.model, self.created, self.build, in_graph=in_graph)


def run(file: ModelFile, architecture: str, samples: Mapping[str, Any]) -> Built:
    """Build the model of a function.

    A file of Keras 1 may not contain its version; then the calls of the function show it. Nor do
    files of tf_keras 2.16 or later. The groups in the file may show that it is one, and a function
    that fails in Keras 3 may be one for tf_keras.
    """
    program = _program(file)
    try:
        built = _run(file, architecture, samples, program)
    except (UsageError, UnsupportedModelError) as error:
        if not program.may_be_older:
            raise
        failure = error_text.shortened(error.message.removeprefix("--architecture: "), 200)
        reason = f"The program fails in Keras 3 ({failure})"
        return _run_in_keras_2(file, architecture, samples, reason, error)
    if program.may_be_older:
        build_sublayers(built.model)
        layout = saved_layout.of_file(file, built.model)
        if () < layout.version < saved_layout.KERAS_3:
            reason = f"Its weights are in groups as in {saved_layout.keras_name(layout.version)}"
            return _run_in_keras_2(file, architecture, samples, reason, version=layout.version)
        if layout.is_unclear:
            built.program.notes.append(_UNCLEAR.format(file.path.name))
        if not layout.fits:
            older = _run_if_of_keras_2(file, architecture, samples, layout)
            if older is not None:
                return older
        if layout.version and not layout.may_be_older:
            return _run(file, architecture, samples, Program())
        _report_masks(built, architecture, samples)
    if built.program.version or not built.program.is_keras_1:
        return built
    file = replace(file, keras_version=".".join(map(str, _KERAS_1)))
    built = _run(file, architecture, samples, Program(_KERAS_1))
    built.program.notes.insert(
        0,
        f"{file.path.name} does not contain its Keras version. The function has calls of Keras 1, "
        "so the model computes as in Keras 1.",
    )
    return built


def _run_if_of_keras_2(
    file: ModelFile, architecture: str, samples: Mapping[str, Any], layout: saved_layout.SavedLayout
) -> Built | None:
    """Build a model of Keras 2 whose weights do not fit the one of Keras 3, with its ``layout``.

    A ``tf.Variable`` is a weight in Keras 2 only. None if Keras 2 cannot build the model, or if the
    groups are of Keras 3 and do not fit in Keras 2 either.
    """
    reason = "Its weights do not fit the model in Keras 3"
    try:
        built = _run_in_keras_2(file, architecture, samples, reason)
        build_sublayers(built.model)
    except (UsageError, UnsupportedModelError):
        return None
    version = saved_layout.of_keras_2(file, built.model)
    if version == saved_layout.TF_KERAS or (not version and not layout.version):
        return built
    if not version:
        return None
    return _run_in_keras_2(file, architecture, samples, reason, version=version)


def _run_in_keras_2(
    file: ModelFile,
    architecture: str,
    samples: Mapping[str, Any],
    reason: str,
    failure: UsageError | UnsupportedModelError | None = None,
    version: tuple[int, ...] = saved_layout.TF_KERAS,
) -> Built:
    """Build a model that Keras 3 has not saved, for a ``reason``: Keras 2 ``version`` has.

    Raises ``failure``, of Keras 3, if tf_keras could not build it either.
    """
    is_latest = version == saved_layout.TF_KERAS
    text = SINCE_TF_KERAS if is_latest else ".".join(map(str, version))
    older = replace(file, keras_version=text)
    try:
        built = _run(older, architecture, samples, Program(version, of_tensorflow=True))
    except (UsageError, UnsupportedModelError) as error:
        raise (failure or error) from None
    built.program.notes.insert(
        0,
        f"{file.path.name} does not contain its Keras version. {reason}, so the layers of Keras "
        f"compute as in {saved_layout.keras_name(version)}, with its masks.",
    )
    return built


def _report_masks(built: Built, architecture: str, samples: Mapping[str, Any]) -> None:
    """Add a note about layers with other masks if tf_keras has saved the file."""
    if not mask_comparison.has_masks(built.model):
        return
    verb = "are"
    try:
        older = _run_in_keras_2(built.file, architecture, samples, "")
        built_layers.adapt(
            older.model, original_keras.OriginalKeras(saved_layout.TF_KERAS, of_tensorflow=True)
        )
        names = mask_comparison.differing(built.model, older.model, samples)
        names += [
            name for name in mask_comparison.with_empty_rows(older.model) if name not in names
        ]
    except UsageError:
        return  # tf_keras has not saved it
    except UnsupportedModelError:
        names, verb = ["all layers with masks"], "may be"
    names = [name for name in names if not any(f"{name}:" in n for n in built.program.notes)]
    if names:
        built.program.notes.append(
            f"{enumerated(names)}: the masks {verb} others in Keras 2 than in Keras 3. The file "
            f"does not contain its version. If tf_keras saved it, the outputs {verb} wrong: "
            "save the weights as .h5, model.save_weights('model.h5')."
        )


def original_keras_of(file: ModelFile, version: tuple[int, ...]) -> original_keras.OriginalKeras:
    """Return which Keras saved the weights of a program, whose ``version`` is known."""
    return original_keras.OriginalKeras(
        version,
        of_tensorflow=classes_of_keras_2.is_of_tensorflow(file.keras_version, version),
        backend=file.backend,
        stored=file.config,
    )


def _run(file: ModelFile, architecture: str, samples: Mapping[str, Any], program: Program) -> Built:
    version = config_inspection.version_numbers(file.keras_version)

    def build() -> Any:
        reset_names()
        original = original_keras_of(file, version)
        original_keras.use(original)
        with contextlib.ExitStack() as stack:
            stack.enter_context(batch_products.in_layers(program.notes))
            if original.of_tensorflow or not () < version < (3,):
                stack.enter_context(outputs_of_calls.inferred())
            if original.of_tensorflow or program.may_be_older:
                stack.enter_context(tracking_order.recorded())
            if program.version < (3,):
                stack.enter_context(implicit_masks.passed(of_program=True))
                stack.enter_context(own_layers.weights_of_keras_2())
                # Also in methods that run after the function.
                stack.enter_context(legacy_layers.places_accepted(program))
                stack.enter_context(argument_types.accepted())
            elif program.may_be_older:
                stack.enter_context(implicit_masks.reported(program.notes))
            return function_model(architecture, samples, program)

    created: list[Any] = []
    with values_of_build.recorded(created):
        model = build()
    return Built(file, model, program, build, created)


def _program(file: ModelFile) -> Program:
    """Return what a file of weights shows of the program that saved it."""
    with open_weights(file) as weights:
        version = config_inspection.version_numbers(file.keras_version) or weights.version()
        # Files of Keras 3 with weights only have another layout, without a version.
        may_be_older = not (version or weights.is_layered or weights.has_names)
        version = version or (() if weights.is_layered else (3,))
    return Program(
        version,
        of_tensorflow=str(file.keras_version).endswith("-tf"),
        may_be_older=may_be_older,
    )
