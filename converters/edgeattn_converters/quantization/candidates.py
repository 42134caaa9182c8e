"""The candidates for a file of one scheme, from the plainest to the most careful."""

from dataclasses import dataclass, replace

from edgeattn.errors import SchemeError
from edgeattn_converters.options import QuantizationOptions
from edgeattn_converters.recipes import Recipe

# Target for the ratio of errors to their limits: the verdict is given on other samples, so a
# candidate needs room.
TARGET = 0.5
# float16 weights take twice the size of int8, so they are for models that nothing else brings below
# this ratio.
SUFFICIENT = 0.8
# The price of more precise weights, by the layers that have them.
SHARES = {"": 0, "recurrent": 1, "all": 2, "every": 3}


@dataclass(frozen=True)
class Candidate:
    """What stays float in addition to operators without an integer kernel.

    ``attention`` keeps the softmax, the scores and the context in float32, ``projections`` also the
    products that make queries and keys, ``upstream`` everything that the scores depend on, with
    int8 weights. ``recurrence`` keeps recurrent layers in float32, with ``step_products`` except
    the products of their steps with a state; ``states`` keeps only the operators that update their
    states, with ``functions`` also the functions of these updates, see :mod:`.state_updates`.
    ``joined`` multiplies input and state of a step in one product, see :mod:`.joined_products`.
    ``float16`` selects weights upstream of attention that become float16: ``""``, ``"recurrent"``
    ones or ``"all"``.
    ``float_activations`` is for a scheme of int8 weights: no activation is scaled to int8.
    ``halves`` selects products upstream of attention in integer files whose weights are the sum of
    two int8 values: ``""``, those of ``"recurrent"`` layers or ``"all"``, which includes tables of
    embeddings; ``"every"`` selects those of the whole model. ``cut_tails`` sets the smallest
    attention weights of an int16 softmax to zero.
    """

    attention: bool = False
    recurrence: bool = False
    step_products: bool = False
    states: bool = False
    functions: bool = False
    joined: bool = False
    projections: bool = False
    upstream: bool = False
    float16: str = ""
    float_activations: bool = False
    halves: str = ""
    cut_tails: bool = False

    @property
    def float_parts(self) -> int:
        """How much is more precise than requested: the price of a better result."""
        parts = (
            self.attention,
            self.recurrence,
            self.states,
            self.functions,
            self.projections,
            self.upstream,
            self.float_activations,
            self.cut_tails,
        )
        return sum(parts) + sum(SHARES[share] for share in (self.float16, self.halves))


DEFAULT = Candidate()


@dataclass(frozen=True)
class Stage:
    """Candidates that are made if the best ratio of the earlier stages is above ``threshold``."""

    candidates: tuple[Candidate, ...]
    threshold: float = 0.0


def dynamic_stages(*, has_attention: bool, is_recurrent: bool) -> tuple[Stage, ...]:
    """Candidates for int8 weights with activations scaled to int8 at run time, or float32.

    Both have the same size. Which is faster depends on the sizes of the products.
    """
    return (
        Stage((DEFAULT, Candidate(float_activations=True))),
        *_float16_stages(has_attention, is_recurrent, SUFFICIENT, float_activations=True),
    )


def static_stages(
    recipe: Recipe,
    options: QuantizationOptions,
    *,
    has_attention: bool,
    is_recurrent: bool,
    has_steps: bool,
) -> tuple[Stage, ...]:
    """Candidates for activations with calibrated ranges.

    ``has_steps`` says whether steps of a recurrence could be integers. Raises
    :class:`SchemeError` if the options request an attention precision that the scheme does not
    have.
    """
    requested = options.attention_precision
    if requested == "int16" and has_attention and recipe.activations != "int16":
        raise SchemeError(
            "An int8 file has one integer type for its activations: its attention can be int8 or "
            "float32, but not int16.",
            hint="Request the scheme int16x8 for int16 attention.",
        )
    # "int8" leaves an int16x8 file as it is, because all its activations are int16.
    float_attention = {recipe.activations: (False,), "float32": (True,)}.get(
        requested, (False, True)
    )
    steps = [DEFAULT]
    if has_steps and recipe.activations == "int8":
        steps += [
            Candidate(states=True),
            Candidate(states=True, functions=True),
            Candidate(recurrence=True, step_products=True),
        ]
    if has_steps:
        steps.append(Candidate(recurrence=True))
    candidates = [
        replace(step, attention=attention)
        for attention in (float_attention if has_attention else (False,))
        for step in steps
    ]
    if not has_attention or True not in float_attention:
        return (Stage(tuple(candidates)),)
    if recipe.activations == "int8":
        most = Candidate(attention=True, recurrence=has_steps, projections=True)
        candidates.append(most)
        if has_steps:
            candidates.append(replace(most, step_products=True))
    # Whoever requests int16 activations needs precision more than size.
    threshold = TARGET if recipe.activations == "int16" else SUFFICIENT
    return (
        Stage(tuple(candidates)),
        Stage((Candidate(attention=True, upstream=True),), TARGET),
        *_float16_stages(has_attention, is_recurrent, threshold),
    )


def _float16_stages(
    has_attention: bool, is_recurrent: bool, threshold: float, *, float_activations: bool = False
) -> list[Stage]:
    if not has_attention:
        return []
    kinds = ("recurrent", "all") if is_recurrent else ("all",)
    common = Candidate(
        attention=not float_activations, upstream=True, float_activations=float_activations
    )
    return [Stage((replace(common, float16=kind),), threshold) for kind in kinds]
