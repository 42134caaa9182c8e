"""The ways to make a file of one scheme, from the plainest to the most careful."""

from __future__ import annotations

from dataclasses import dataclass

from edgeattn.errors import ConversionError
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.recipes import Recipe

# Of its limits a file must keep so far away here: the verdict is passed on other samples.
MARGIN = 0.5
# Weights of twice the size are for where nothing else comes so near.
ENOUGH = 0.8
NO_INT16 = (
    "An int8 file has one integer type for its activations: attention can be int8 or float32 in "
    "it. For int16, ask for the scheme int16x8."
)


@dataclass(frozen=True)
class Candidate:
    """What stays float32 beyond what has no integer operator.

    ``attention`` is its softmax, scores and context, ``deep`` the projections that make queries and
    keys too, ``upstream`` all that the scores are made of. ``half`` says which weights among the
    latter are float16: ``""``, ``"recurrent"`` ones or ``"all"``. ``careful`` is for weights that
    are int8 while no activation is.
    """

    attention: bool = False
    recurrence: bool = False
    deep: bool = False
    upstream: bool = False
    half: str = ""
    careful: bool = False

    @property
    def kept(self) -> int:
        """How much it keeps, to weigh against what that gains."""
        own = (self.attention, self.recurrence, self.deep, self.upstream, self.careful)
        return sum(own) + {"": 0, "recurrent": 1, "all": 2}[self.half]

    @property
    def plain(self) -> bool:
        return not self.kept


PLAIN = Candidate()


@dataclass(frozen=True)
class Stage:
    """Plans that are tried where none of those before came within ``above`` of the limits."""

    plans: tuple[Candidate, ...]
    above: float = 0.0


def dynamic_stages(*, attended: bool, recurrent: bool) -> tuple[Stage, ...]:
    """Plans for int8 weights whose activations are scaled to int8 as they come, or not at all.

    The first is the fastest, the second keeps its size.
    """
    steps = [Stage((PLAIN,)), Stage((Candidate(careful=True),), MARGIN)]
    return (*steps, *_halves(attended, recurrent, above=ENOUGH, careful=True))


def static_stages(
    recipe: Recipe,
    options: QuantizationOptions,
    *,
    attended: bool,
    recurrent: bool,
    written_out: bool,
) -> tuple[Stage, ...]:
    """Plans for activations whose ranges were measured.

    ``written_out`` says whether there are steps of a recurrence among the operators. Raises
    :class:`ConversionError` for an attention precision that the scheme does not have.
    """
    asked = options.attention_precision
    if asked == "int16" and attended and recipe.activations != "int16":
        raise ConversionError(NO_INT16)
    kept = {"auto": (False, True), "int8": (False,), "float32": (True,)}.get(asked, (False, True))
    plans = [
        Candidate(attention=attention, recurrence=recurrence)
        for attention in (kept if attended else (False,))
        for recurrence in ((False, True) if written_out else (False,))
    ]
    if not attended or True not in kept:
        return (Stage(tuple(plans)),)
    if recipe.activations == "int8":
        plans.append(Candidate(attention=True, recurrence=written_out, deep=True))
    careful = Candidate(attention=True, upstream=True)
    return (
        Stage(tuple(plans)),
        Stage((careful,), MARGIN),
        # int16 activations are asked for where it is precision that counts.
        *_halves(attended, recurrent, above=MARGIN if recipe.activations == "int16" else ENOUGH),
    )


def _halves(attended: bool, recurrent: bool, *, above: float, careful: bool = False) -> list[Stage]:
    if not attended:
        return []
    kinds = ("recurrent", "all") if recurrent else ("all",)
    return [
        Stage((Candidate(attention=not careful, upstream=True, half=kind, careful=careful),), above)
        for kind in kinds
    ]
