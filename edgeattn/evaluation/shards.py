"""Parts of a dataset that are evaluated apart, and merged exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from edgeattn.tensors import Tensors

if TYPE_CHECKING:
    from edgeattn.bundle.manifest import Artifact
    from edgeattn.metrics.limits import Limit


@dataclass(frozen=True, order=True)
class Shard:
    """The batches of a dataset from number ``first`` to before ``stop``."""

    first: int
    stop: int


@dataclass(frozen=True)
class ShardResult:
    """What the batches of a shard gave.

    Attributes:
        done: Number of samples.
        state: What was accumulated.
        errors: Messages of artifacts that stopped, by label.
        reference_error: Why the fallback reference stopped.
    """

    done: int
    state: Tensors = field(repr=False)
    errors: Mapping[str, str] = field(default_factory=dict)
    reference_error: str | None = None


@dataclass(frozen=True)
class ShardWork:
    """What is evaluated on a shard.

    Attributes:
        artifacts: Artifacts to compare with the reference.
        fallback: The artifact that is the reference, if the dataset brings none.
        limits: Limits in place of those of the scheme.
        reference_name: What produces the outputs of the reference.
    """

    artifacts: tuple[Artifact, ...]
    fallback: Artifact | None
    limits: tuple[Limit, ...]
    reference_name: str


# Evaluates a dataset elsewhere, except the shards that are known already, and returns the results
# of shards as they end, in any order.
ShardRunner: TypeAlias = Callable[[ShardWork, Sequence[Shard]], Iterable[tuple[Shard, ShardResult]]]
