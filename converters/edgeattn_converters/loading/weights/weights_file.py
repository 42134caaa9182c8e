"""The weights of a file in any format: their shapes, their total size and their assignment."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from edgeattn.errors import UnsupportedModelError
from edgeattn_converters.loading.audit import ModelFile
from edgeattn_converters.loading.config_inspection import Config, is_model
from edgeattn_converters.loading.formats import hdf5, keras_archive, saved_model
from edgeattn_converters.loading.migrate.context import Shape
from edgeattn_converters.loading.weights import from_archive, from_hdf5, from_saved_model


@dataclass(frozen=True)
class WeightsFile:
    """The weights of an open file: an HDF5 file, or the variables of a SavedModel by path."""

    source: Any

    def shapes(self, stored: Config) -> Callable[[str], list[tuple[str, Shape]]]:
        """Return a function from layer name to path and shape of its arrays, without values."""
        if isinstance(self.source, dict):
            return lambda _name: []
        shapes = from_hdf5.stored_shapes(self.source)
        if not shapes and is_model(stored):
            shapes = from_archive.stored_shapes(self.source, stored)
        return lambda name: shapes.get(name, [])

    def version(self) -> tuple[int, ...]:
        """Return the first Keras version that wrote the layout of the file; ``()`` if unknown."""
        return (2, 13) if "_layer_checkpoint_dependencies" in self.source else ()

    def adapt_names(self, model: Any) -> None:
        """Give the layers the names that the file contains, in order, if they have other names.

        Keras assigns weights in order, because generated names depend on the models built before.
        """
        if isinstance(self.source, dict) or not from_hdf5.is_layered(self.source):
            return
        names = [name for name, shapes in from_hdf5.stored_shapes(self.source).items() if shapes]
        layers = [layer for layer in model.layers if layer.weights]
        others = {layer.name for layer in model.layers if not layer.weights}
        differ = {layer.name for layer in layers} != set(names)
        if differ and len(names) == len(layers) and not others.intersection(names):
            for layer, name in zip(layers, names, strict=True):
                layer.name = name

    def size(self) -> int:
        """Return the number of stored values."""
        variables = isinstance(self.source, dict)
        arrays = self.source.items() if variables else hdf5.datasets(self.source)
        return sum(int(array.size) for _, array in arrays)

    def assign(self, model: Any, stored: Config, *, major: int, backend: str | None) -> None:
        """Assign the weights to the model built from the config; see :func:`from_hdf5.assign`."""
        if isinstance(self.source, dict):
            from_saved_model.assign(self.source, model, stored)
        elif from_hdf5.is_layered(self.source):
            from_hdf5.assign(self.source, model, stored, major=major, backend=backend)
        else:
            from_archive.assign(self.source, model, stored)


@contextmanager
def open_weights(file: ModelFile) -> Iterator[WeightsFile]:
    """Open the weights of an audited file; :class:`UnsupportedModelError` if that is impossible."""
    import h5py

    if file.kind == "saved-model":
        yield WeightsFile(saved_model.read_variables(file.path))
        return
    source = keras_archive.read_weights(file.path) if file.kind == "keras-zip" else file.path
    try:
        with h5py.File(source, "r") as weights:
            yield WeightsFile(hdf5.with_forward_slashes(weights))
    except (OSError, RuntimeError) as error:
        raise UnsupportedModelError(
            f"Cannot read the weights in {file.path.name}: {error}",
            hint="Download or copy the file again: it is damaged.",
        ) from error
