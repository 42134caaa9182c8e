"""The model that the tasks of a worker share: audited and loaded once, with its interface."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeattn import progress
from edgeattn.errors import EdgeattnError, SampleError
from edgeattn.samples import files as sample_files
from edgeattn.samples.states import sample_inputs
from edgeattn.samples.stored_inputs import replaced_inputs
from edgeattn_converters.loading.audit import ModelFile, audit_file
from edgeattn_converters.loading.load import load_model, load_with_free_time
from edgeattn_converters.loading.loaded_model import LoadedModel
from edgeattn_converters.loading.migrate.keras2 import STATE_RESET_NOTE
from edgeattn_converters.loading.migrate.preprocessing import REMOVED_NOTE
from edgeattn_converters.loading.removed_layers import NOT_PREPARED
from edgeattn_converters.options import ConversionOptions, ModelSource
from edgeattn_converters.reference.free_batches import with_known_batch
from edgeattn_converters.tracing import architecture_outputs, states
from edgeattn_converters.tracing.free_time import FreeModel, free_model
from edgeattn_converters.tracing.trace import Interface, interface_of
from edgeattn_converters.worker import early_checks

Json = Mapping[str, Any]


@dataclass(frozen=True, eq=False)  # hashed by identity, as a cache key
class OpenModel:
    """A loaded model and its inputs and outputs."""

    source: ModelSource
    loaded: LoadedModel
    interface: Interface
    free: FreeModel | None = None

    @property
    def model(self) -> Any:
        return self.loaded.model

    @property
    def samples(self) -> Path | None:
        return None if self.source.samples is None else Path(self.source.samples)


def open_model(source: Json, options: Json) -> OpenModel:
    """The model of ``source``, loaded once for all tasks."""
    parsed = ConversionOptions(**options)
    return _load(ModelSource(**source), tuple(parsed.attention_layers), parsed.states)


@functools.cache
def _load(source: ModelSource, attention_layers: tuple[str, ...], with_states: bool) -> OpenModel:
    progress.report(f"loading {Path(source.path).name}")
    time_steps = early_checks.time_steps_of(source)
    with early_checks.free_axes_checked(source):
        loaded = load_model(
            audited_file(str(source.path), source.trust, source.signature),
            custom_objects=None if source.custom_objects is None else Path(source.custom_objects),
            architecture=source.architecture,
            time_steps=time_steps,
            samples=None if source.samples is None else Path(source.samples),
            ignore=source.ignore,
        )
        loaded, pairs = _with_states(loaded) if with_states else (loaded, {})
        with architecture_outputs.explained(loaded.model, source.architecture):
            interface = interface_of(
                loaded.model, time_steps=time_steps, attention=attention_layers
            )
    interface = states.mark_states(interface, pairs)
    interface, notes = with_known_batch(loaded.model, interface)
    loaded = replace(loaded, notes=(*loaded.notes, *notes))
    early_checks.check_sizes(source, sample_inputs(interface.inputs))
    free = None if time_steps is None else _free_model(source, interface, with_states=with_states)
    return OpenModel(source, loaded, interface, free)


def _free_model(
    source: ModelSource, interface: Interface, *, with_states: bool
) -> FreeModel | None:
    """The model with its time axis as free as it is stored; None if it is fixed."""
    file = audited_file(str(source.path), source.trust, source.signature)
    if not early_checks.may_be_free(file, source.architecture):
        return None
    try:
        loaded = load_with_free_time(file, source)
        if with_states:
            loaded, _ = _with_states(loaded)
    except EdgeattnError:
        return None
    return free_model(loaded.model, interface)


def _with_states(loaded: LoadedModel) -> tuple[LoadedModel, dict[str, str]]:
    model, pairs = states.with_states(loaded.model, loaded.stateful)
    notes = [note for note in loaded.notes if not note.endswith(STATE_RESET_NOTE)]
    notes.append(f"states are inputs (zero at the start) and outputs: {', '.join(pairs.values())}")
    return replace(loaded, model=model, notes=tuple(notes)), pairs


@functools.cache
def audited_file(path: str, trust: str | None, signature: str | None = None) -> ModelFile:
    return audit_file(Path(path), trust=trust, signature=signature)


@contextlib.contextmanager
def explaining_removed_layers(opened: OpenModel) -> Iterator[None]:
    """Add to errors about samples what inputs take if preprocessing layers were removed."""
    try:
        yield
    except SampleError as error:
        removed = [note for note in opened.loaded.notes if REMOVED_NOTE in note]
        if not removed:
            raise
        inputs = ", ".join(map(str, sample_inputs(opened.interface.inputs)))
        names = replaced_inputs(opened.loaded.stored_inputs)
        # The front end prepares all raw inputs, or none.
        is_prepared = not any(NOT_PREPARED in note for note in removed)
        raw = "raw inputs with --raw-samples, or " if is_prepared else ""
        parts = (*removed, *([f"{names}."] if names else ()))
        hint = f"Pass {raw}what these layers returned for the inputs {inputs}. {' '.join(parts)}"
        raise SampleError(error.message, hint=hint) from error


def check_arrays(opened: OpenModel, path: Path) -> None:
    """Raise :class:`SampleError` if a file has an array that is neither an input nor a label."""
    outputs = [spec.name for spec in opened.interface.outputs]
    ignore = opened.source.ignore
    sample_files.open_samples(path, opened.interface.inputs, ignore=ignore).check_arrays(outputs)
