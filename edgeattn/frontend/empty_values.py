"""Raw values without content, which steps would fill up with padding."""

from typing import Any

import numpy as np

from edgeattn.frontend.description import Step
from edgeattn.frontend.lookup import StringLookup
from edgeattn.frontend.text import TextVectorization


def is_empty(value: Any, first_step: Step | None) -> bool:
    """Whether a raw value has no word and no number. ``first_step`` is the first of its input.

    Strings of white space are empty, unless they are tokens of a lookup. Raises
    :class:`~edgeattn.errors.SampleError` if a text is malformed.
    """
    try:
        array = np.asarray(value)
    except ValueError:  # lists of several lengths, which the steps refuse
        return False
    if array.dtype.kind not in "USO":
        return not array.size
    tokens: tuple[str, ...] = ()
    if isinstance(first_step, StringLookup):
        tokens = tuple(token for token in first_step.vocabulary if token != first_step.mask_token)
    if not any(_has_content(item, tokens) for item in array.flat):
        return True
    if not isinstance(first_step, TextVectorization):
        return False
    # Standardization may remove all that a text has, and words may be Unicode's white space.
    return not any(word.strip() for word in first_step.words(value))


def _has_content(item: Any, tokens: tuple[str, ...]) -> bool:
    return not isinstance(item, str | bytes) or bool(item.strip()) or item in tokens
