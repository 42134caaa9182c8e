"""Reversals of several axes, of which TFLite's operator takes only neighbors."""

from typing import Any


def reversed_in_turn(x: Any, axes: Any) -> Any:
    """ReverseV2 of each group of neighboring axes after the other; None for a single group.

    The interpreter of TFLite refuses others, and crashes without an axis.
    """
    import tensorflow as tf

    positions = tf.get_static_value(axes)
    if positions is None or x.shape.rank is None:
        return None
    groups: list[list[int]] = []
    for axis in sorted(int(position) % x.shape.rank for position in positions):
        if groups and axis == groups[-1][-1] + 1:
            groups[-1].append(axis)
        else:
            groups.append([axis])
    if len(groups) == 1:
        return None
    result = tf.identity(x)
    for group in groups:
        result = tf.raw_ops.ReverseV2(tensor=result, axis=group)
    return result
