"""What a scheme means: how weights and activations are stored, and what it needs to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeattn.errors import UsageError


@dataclass(frozen=True)
class Recipe:
    """A scheme: the dtypes of weights and activations, and whether they are measured on samples."""

    scheme: str
    weights: str
    activations: str
    needs_calibration: bool = False


RECIPES: Mapping[str, Recipe] = {
    recipe.scheme: recipe for recipe in (Recipe("float32", "float32", "float32"),)
}


def recipe_for(scheme: str) -> Recipe:
    """The recipe of a scheme's name; :class:`UsageError` names those there are."""
    if scheme not in RECIPES:
        raise UsageError(f"No scheme {scheme!r}: there is {', '.join(RECIPES)}.")
    return RECIPES[scheme]
