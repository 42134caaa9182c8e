"""Labels of sequences of scores, as a CTC decoder reads them."""

from collections.abc import Mapping
from typing import Any


def greedy_decoded(scores: Any, lengths: Any, *, attributes: Mapping[str, Any]) -> Any:
    """What ``tf.nn.ctc_greedy_decoder`` returns: the labels with the best scores, without blanks.

    tf2onnx takes the last label as the blank one, whatever ``blank_index`` is.

    Args:
        scores: of shape (time, samples, labels).
        lengths: the number of time steps of each sample, of shape (samples,).
        attributes: ``merge_repeated``, whether a label that follows itself is dropped, and
            ``blank_index``, a negative one from the last label on.

    Returns:
        The first of four tensors: the positions of the labels of a sparse tensor, (results, 2), the
        labels, its shape, and the negative sum of the best scores, (samples, 1).
    """
    import tensorflow as tf

    blank = attributes["blank_index"].i
    if blank < 0 and scores.shape[2] is None:
        return None
    blank = blank if blank >= 0 else scores.shape[2] + blank
    scores = tf.transpose(scores, [1, 0, 2])
    labels = tf.argmax(scores, 2, output_type=tf.int32)
    steps = tf.range(tf.shape(labels)[1])
    is_valid = steps < tf.cast(lengths, tf.int32)[:, None]
    is_kept = is_valid & tf.not_equal(labels, blank)
    if attributes["merge_repeated"].b:
        before = tf.pad(labels[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
        is_kept &= tf.not_equal(labels, before)
    kept = tf.cast(is_kept, tf.int32)
    places = tf.where(is_kept)
    position = tf.cast(tf.gather_nd(tf.cumsum(kept, 1, exclusive=True), places), tf.int64)
    sizes = tf.reduce_sum(kept, 1)
    best = tf.reduce_max(scores, 2)
    total = tf.reduce_sum(tf.where(is_valid, best, tf.zeros_like(best)), 1, keepdims=True)
    results = tf.identity_n(
        [
            tf.stack([places[:, 0], position], 1),
            tf.cast(tf.gather_nd(labels, places), tf.int64),
            tf.cast(tf.stack([tf.shape(labels)[0], tf.reduce_max(sizes)]), tf.int64),
            -total,
        ]
    )
    return results[0]
