"""Which attention maps are exported: those without a doubt, and those that the user names."""

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from edgeattn.errors import UsageError
from edgeattn.tensors import Specs, TensorSpec
from edgeattn_converters.lowering.call_replacement import all_layers
from edgeattn_converters.tracing.attention_outputs import AttentionMap
from edgeattn_converters.tracing.softmax_search import NO_PRODUCT


class Doubtful(NamedTuple):
    """A layer that may be attention but whose map is not exported.

    ``exportable`` says whether naming the layer exports the map.
    """

    layer: str
    reason: str
    exportable: bool


@dataclass(frozen=True)
class MapSelection:
    """Selects the maps to export; ``layers`` are named by the user: ``--attention LAYER``."""

    model: Any
    layers: Sequence[str] = field(default=())

    def select(
        self,
        maps: Sequence[tuple[AttentionMap, TensorSpec]],
        in_loops: Sequence[AttentionMap],
        without_batch: Collection[str],
    ) -> tuple[Specs, tuple[Doubtful, ...]]:
        """The maps to export, and the layers that may have another.

        ``without_batch`` names the maps whose first axis is not the batch axis. Raises
        :class:`UsageError` if a named layer has no map.
        """
        exported: list[TensorSpec] = []
        doubtful: list[Doubtful] = []
        for item, spec in maps:
            reason: str | None = None
            exportable = False
            if spec.shape and spec.shape[0] is not None and item.name in without_batch:
                reason = "the first axis of its map is not the batch axis"
            elif None in spec.shape[1:] or len(spec.shape) < 2:
                reason = "the shape of its map depends on the input's values"
            elif item.name in without_batch:
                reason = "the first axis of its map is not the batch axis"
            elif not self._is_named(item):
                reason, exportable = item.doubt, True
            if reason is None:
                exported.append(spec)
            elif item.doubt != NO_PRODUCT:
                doubtful.append(Doubtful(item.layer, reason, exportable))
        doubtful += [
            Doubtful(item.layer, "it is computed inside a loop", False)
            for item in in_loops
            if item.doubt != NO_PRODUCT
        ]
        self._check_names([item for item, _ in maps], doubtful, exported)
        return tuple(exported), tuple(doubtful)

    def _is_named(self, item: AttentionMap) -> bool:
        return item.layer in self.layers or bool(set(item.inside) & set(self.layers))

    def _check_names(
        self,
        maps: Sequence[AttentionMap],
        doubtful: Sequence[Doubtful],
        exported: Sequence[TensorSpec],
    ) -> None:
        layers = [*(item.layer for item in maps), *(item.layer for item in doubtful)]
        candidates = list(dict.fromkeys(layers))
        hint = (
            f"Choose a layer with a softmax: {', '.join(candidates)}."
            if candidates
            else "Omit --attention; no layer of this model has a softmax."
        )
        exported_names = {spec.name for spec in exported}
        for name in self.layers:
            if any(
                item.name in exported_names and name in (item.layer, *item.inside) for item in maps
            ):
                continue
            names = [layer.name for layer in all_layers(self.model)]
            if name in names or name in candidates:
                raise UsageError(f"--attention {name}: this layer has no map to export.", hint=hint)
            similar = difflib.get_close_matches(name, [*candidates, *names], 1)
            suggestion = f" Did you mean {similar[0]}?" if similar else ""
            raise UsageError(
                f"--attention {name}: the model has no layer with this name.{suggestion}", hint=hint
            )
