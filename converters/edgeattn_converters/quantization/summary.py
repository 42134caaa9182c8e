"""What was asked and what became of it: operators and weights by dtype, and one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeattn.errors import ConversionError
from edgeattn_converters.recipes import Recipe

# How an operator computes. ``WEIGHTS``: its weights are integers, what it takes and gives is not.
FLOAT, WEIGHTS = "float32", "int8 weights"
# Of the values in weights that are worth it, how many must be in the scheme's dtype.
SHARE = 0.5
FEW = 4


@dataclass(frozen=True)
class SchemeSummary:
    """``computes``: ``(kind, how)`` of each operator that computes with real numbers.

    ``stored``: values of the weights by dtype; ``large``: the same of the weights that a scheme is
    about, the small ones left out.
    """

    computes: tuple[tuple[str, str], ...]
    stored: Mapping[str, int]
    large: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        by_dtype: dict[str, Counter[str]] = {}
        for kind, how in self.computes:
            by_dtype.setdefault(how, Counter())[kind] += 1
        return {
            "computes_in": {how: dict(sorted(kinds.items())) for how, kinds in by_dtype.items()},
            "weights": dict(sorted(self.stored.items())),
        }

    def sentence(self, recipe: Recipe, told: Iterable[str] = ()) -> str:
        """Such as ``int8 asked; 3 of 41 operators stayed float32 (SOFTMAX 3); ...``"""
        parts = []
        if recipe.activations != FLOAT:
            floats = Counter(kind for kind, how in self.computes if how in (FLOAT, WEIGHTS))
            stayed = sum(floats.values())
            names = _listed(floats)
            where = f" ({names})" if names else ""
            parts.append(f"{stayed} of {len(self.computes)} operators stayed float32{where}")
        total = sum(self.stored.values())
        share = self.stored.get(recipe.weights, 0) / total if total else 0.0
        parts.append(f"{share:.0%} of {total:,} weights are {recipe.weights}")
        if not self.large:
            parts.append("none is large enough to gain by it")
        return f"{recipe.scheme} asked; " + "; ".join([*parts, *told])

    def check(self, recipe: Recipe, *, weights_kept: bool = False) -> None:
        """:class:`ConversionError` where the file is not what was asked for.

        ``weights_kept`` says that some were left in more bits on purpose.
        """
        if recipe.scheme == FLOAT:
            return
        total = sum(self.large.values())
        share = self.large.get(recipe.weights, 0) / total if total else 1.0
        if share < SHARE and not weights_kept:
            raise ConversionError(
                f"{recipe.scheme} was not reached: {share:.0%} of the weights are "
                f"{recipe.weights}, the rest stayed {_listed(Counter(self.large))}.",
                hint="Keep the file all the same with --allow-float-fallback.",
            )
        done = {how for _, how in self.computes}
        if recipe.activations != FLOAT and recipe.activations not in done:
            raise ConversionError(
                f"{recipe.scheme} was not reached: no operator computes in {recipe.activations}.",
                hint="Keep the file all the same with --allow-float-fallback.",
            )


def _listed(counts: Counter[str]) -> str:
    common = counts.most_common()
    named = ", ".join(f"{name} {count:,}" for name, count in common[:FEW])
    return named + (", ..." if len(common) > FEW else "")
