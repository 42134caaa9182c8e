"""Einsum equations that TFLite's converter does not write, in operations that it does.

It makes every einsum a product of matrices, which fails if a letter is repeated in an operand (a
diagonal), if only one operand has a letter that the result lacks, for several products of vectors
(``bij,bij->b``) and outer products (``bij,bk->bijk``), and for sums along several axes of which one
operand has no other of its own (``bij,bijk->bk``, a weighted sum of an image).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgeattn_converters.lowering.composed_operations import with_named_axes
from edgeattn_converters.lowering.constant_operands import is_constant

_Attributes = Mapping[str, Any]


def einsum(*operands: Any, attributes: _Attributes) -> Any:
    """The result of an equation that is no plain product of matrices, None for others.

    Diagonals are taken first, and letters that only one operand has and the result has not are
    summed up. What remains is an elementwise product, its sums, or a product of matrices.
    """
    import tensorflow as tf

    equation = attributes["equation"].s.decode()
    equation = with_named_axes(equation, [tuple(item.shape) for item in operands]) or equation
    terms, arrow, result = equation.partition("->")
    letters = terms.split(",")
    if "." in equation or not arrow or len(letters) > 2:
        return None
    kept = [set(result).union(*letters[:k], *letters[k + 1 :]) for k in range(len(letters))]
    tensors, simple = [], []
    for tensor, term, keep in zip(operands, letters, kept, strict=True):
        tensor, term = _summed(*_without_repeated(tensor, term), keep)
        tensors.append(tensor)
        simple.append(term)
    if len(simple) == 1:
        return None if simple == letters else _ordered(tensors[0], simple[0], result)
    contracted = sorted(set(simple[0]) & set(simple[1]) - set(result))
    free = [set(term) - set(contracted) for term in simple]
    # TFLite has products of matrices of floats only.
    if not contracted or free[0] == free[1] or tensors[0].dtype.is_integer:
        order = [*result, *contracted]
        product = _ordered(tensors[0], simple[0], order) * _ordered(tensors[1], simple[1], order)
        axes = list(range(len(result), len(order)))
        return tf.reduce_sum(product, axes) if axes else product
    sizes = [tensors[0].shape[simple[0].index(letter)] for letter in contracted]
    one_is_vector = free[0] < free[1] or free[1] < free[0]
    if len(contracted) > 1 and one_is_vector and None not in sizes:
        tensors, simple = _with_joined_axes(tensors, simple, contracted)
    if len(simple[0]) == 1 and not is_constant(tensors[1], set()):
        tensors, simple = tensors[::-1], simple[::-1]  # see lowering.vectors
    return None if simple == letters else tf.einsum(f"{','.join(simple)}->{result}", *tensors)


def _with_joined_axes(
    tensors: Sequence[Any], terms: Sequence[str], letters: Sequence[str]
) -> tuple[list[Any], list[str]]:
    """The operands with the axes of ``letters`` as one, which has the first of these letters."""
    import tensorflow as tf

    joined, names = [], []
    for tensor, term in zip(tensors, terms, strict=True):
        others = [letter for letter in term if letter not in letters]
        ordered = _ordered(tensor, term, [*others, *letters])
        sizes = ordered.shape.as_list()
        kept = [-1 if size is None else size for size in sizes[: len(others)]]
        joined.append(tf.reshape(ordered, [*kept, math.prod(sizes[len(others) :])]))
        names.append("".join([*others, letters[0]]))
    return joined, names


def _without_repeated(tensor: Any, term: str) -> tuple[Any, str]:
    """The diagonals along letters that are repeated."""
    import tensorflow as tf

    for letter in term:
        while term.count(letter) > 1:
            both = [k for k, other in enumerate(term) if other == letter][:2]
            others = [k for k in range(len(term)) if k not in both]
            tensor = tf.linalg.diag_part(tf.transpose(tensor, [*others, *both]))
            term = "".join(term[k] for k in others) + letter
    return tensor, term


def _summed(tensor: Any, term: str, kept: set[str]) -> tuple[Any, str]:
    """The sums over the letters that are not ``kept``."""
    import tensorflow as tf

    axes = [k for k, letter in enumerate(term) if letter not in kept]
    if not axes:
        return tensor, term
    return tf.reduce_sum(tensor, axes), "".join(letter for letter in term if letter in kept)


def _ordered(tensor: Any, term: str, order: Sequence[str]) -> Any:
    """``tensor`` with the axes ``order``, of size 1 if ``term`` lacks the letter."""
    import tensorflow as tf

    axes = [term.index(letter) for letter in order if letter in term]
    if axes != sorted(axes):
        tensor = tf.transpose(tensor, axes)
    for k, letter in enumerate(order):
        if letter not in term:
            tensor = tf.expand_dims(tensor, k)
    return tensor
