"""The Keras layer ``Attention``, for all backends.

:mod:`edgeattn.numpy_attention` computes the same in numpy, as the reference of the tests. Saved
models contain the path of this module: it must not move.
"""

from typing import Any

import keras
from keras import ops

# Score of masked steps, relative to the highest score of the row. exp(-100) vanishes in every
# precision; the usual -1e9 would take the whole range of an integer quantizer.
FILL = -100.0


@keras.saving.register_keras_serializable(package="edgeattn")
class Attention(keras.layers.Layer):
    """Many-to-one attention: reduces the states h_1 .. h_T of a sequence to one vector.

    The query is the last state, h_T. The score of step s is

    - ``luong``: score_s = h_T · (W h_s) (Luong et al., arXiv 1508.04025, equation 8);
    - ``bahdanau``: score_s = v · tanh(W1 h_T + W2 h_s) (Bahdanau et al., arXiv 1409.0473).

    The weights are a = softmax(score), the context is c = sum_s a_s h_s, and the output is
    tanh(Wc [c; h_T]). There are no biases.

    The layer consumes the mask of its inputs: the weight of a masked step is exactly zero and its
    state is never read, the query is the last unmasked state, and the output of a fully masked row
    is zero.

    Scores have the compute dtype of the layer. The softmax is computed in float32 or better; with
    mixed precision its result is rounded to the compute dtype.

    Args:
        units: size of the output.
        score: ``"luong"`` or ``"bahdanau"``.
        return_attention_weights: whether to return ``(vector, weights)`` instead of the vector.
        use_mask: ``False`` ignores masks, as the PyPI package ``attention`` does: the query is
            the last state and padding gets weights. For models that were trained that way.

    Call arguments:
        inputs: ``(batch, time, features)``, as from ``LSTM(..., return_sequences=True)``.
        mask: bool ``(batch, time)``, true for unmasked steps. Keras passes it automatically.
        return_attention_weights: overrides the constructor argument for this call. In a functional
            model, Keras requires the same value in all calls of a layer.

    Returns:
        The vector, ``(batch, units)``, or with ``return_attention_weights`` the vector and the
        weights, ``(batch, time)``.
    """

    # As in the package attention, whose users may pass them.
    SCORE_LUONG = "luong"
    SCORE_BAHDANAU = "bahdanau"

    def __init__(
        self,
        units: int = 128,
        score: str = "luong",
        return_attention_weights: bool = False,
        use_mask: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(units, int) or isinstance(units, bool) or units <= 0:
            raise ValueError(f"units should be a positive integer. Received: units={units!r}")
        if score not in (self.SCORE_LUONG, self.SCORE_BAHDANAU):
            raise ValueError(f"score should be 'luong' or 'bahdanau'. Received: score={score!r}")
        self.units = units
        self.score = score
        self.return_attention_weights = return_attention_weights
        self.use_mask = use_mask
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build the inner layers, in the order in which existing files list their weights."""
        features = _check_shape(input_shape)[-1]
        if features is None:
            raise ValueError(
                "the last dimension of the inputs should be defined. "
                f"Received: input_shape={input_shape}"
            )
        if self.score == "luong":
            self.luong_w = self._dense("luong_w", features, features)
        else:
            self.bahdanau_v = self._dense("bahdanau_v", features, 1)
            self.bahdanau_w1 = self._dense("bahdanau_w1", features, features)
            self.bahdanau_w2 = self._dense("bahdanau_w2", features, features)
        self.w_c = self._dense("w_c", 2 * features, self.units, activation="tanh")
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: features})

    def call(
        self, inputs: Any, mask: Any = None, return_attention_weights: bool | None = None
    ) -> Any:
        """Return the vector, or the vector and the weights; see the class."""
        mask = self._check_mask(mask)
        if mask is None:
            query = inputs[:, -1]  # (batch, features)
        else:
            inputs = ops.where(mask[:, :, None], inputs, ops.zeros_like(inputs))
            query = _last_unmasked(inputs, mask)  # (batch, features)

        weights = _softmax(self._scores(query, inputs), mask)  # (batch, time)
        weights = ops.cast(weights, inputs.dtype)
        context = ops.matmul(weights[:, None, :], inputs)[:, 0]  # (batch, features)
        vector = self.w_c(ops.concatenate([context, query], axis=-1))  # (batch, units)
        return (vector, weights) if self._returns_weights(return_attention_weights) else vector

    def attention_weights(self, inputs: Any, mask: Any = None) -> Any:
        """Return the attention weights of a call, ``(batch, time)``, for tensors or arrays.

        For weights as an output of a model use ``return_attention_weights``. Raises
        :class:`ValueError` if ``inputs`` are symbolic.
        """
        if isinstance(inputs, keras.KerasTensor):
            raise ValueError(
                "attention_weights() needs values. For the weights as a model output, create the "
                f"layer with return_attention_weights=True. Received: inputs={inputs}"
            )
        return self(inputs, mask=mask, return_attention_weights=True)[1]

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return None: the output has no time axis."""

    def compute_output_shape(
        self, input_shape: tuple[int | None, ...], return_attention_weights: bool | None = None
    ) -> Any:
        """Return ``(batch, units)``, or ``((batch, units), (batch, time))`` with the weights."""
        batch, time, _ = _check_shape(input_shape)
        vector, weights = (batch, self.units), (batch, time)
        return (vector, weights) if self._returns_weights(return_attention_weights) else vector

    def compute_output_spec(
        self, inputs: Any, mask: Any = None, return_attention_weights: bool | None = None
    ) -> Any:
        """Return the shapes and the dtype of the outputs, for any batch size and length."""
        self._check_mask(mask)
        vector, weights = self.compute_output_shape(inputs.shape, return_attention_weights=True)
        spec = keras.KerasTensor(vector, dtype=self.compute_dtype)
        if not self._returns_weights(return_attention_weights):
            return spec
        return spec, keras.KerasTensor(weights, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {
            **super().get_config(),
            "units": self.units,
            "score": self.score,
            "return_attention_weights": self.return_attention_weights,
            "use_mask": self.use_mask,
        }

    def _dense(
        self, name: str, features: int, units: int, activation: str | None = None
    ) -> keras.layers.Dense:
        dense = keras.layers.Dense(
            units, activation=activation, use_bias=False, dtype=self.dtype_policy, name=name
        )
        dense.build((None, features))
        return dense

    def _check_mask(self, mask: Any) -> Any:
        if mask is None or not self.use_mask:
            return None
        if len(mask.shape) != 2:
            raise ValueError(
                f"mask should have the shape (batch, time). Received: mask.shape={mask.shape}"
            )
        return ops.cast(mask, "bool")

    def _returns_weights(self, requested: bool | None) -> bool:
        return self.return_attention_weights if requested is None else requested

    def _scores(self, query: Any, states: Any) -> Any:
        """The score of every state for the query, ``(batch, time)``."""
        if self.score == "luong":
            keys = self.luong_w(states)  # (batch, time, features)
            return ops.matmul(keys, query[:, :, None])[:, :, 0]  # (batch, time)
        energy = self.bahdanau_w1(query)[:, None, :] + self.bahdanau_w2(states)
        return self.bahdanau_v(ops.tanh(energy))[:, :, 0]  # (batch, time)


def _check_shape(input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    if len(input_shape) != 3:
        raise ValueError(
            "the inputs should have the shape (batch, time, features), as from a recurrent layer "
            f"with return_sequences=True. Received: input_shape={input_shape}"
        )
    return input_shape


def _last_unmasked(states: Any, mask: Any) -> Any:
    """The last unmasked state of every row, ``(batch, features)``, or zero if there is none."""
    count = ops.cumsum(ops.cast(mask, "int32"), axis=1)  # (batch, time)
    last = ops.logical_and(mask, count == count[:, -1:])  # (batch, time), at most one true in a row
    return ops.sum(ops.where(last[:, :, None], states, ops.zeros_like(states)), axis=1)


def _softmax(scores: Any, mask: Any) -> Any:
    """Softmax over the unmasked steps, ``(batch, time)``, in float32 or better."""
    scores = ops.cast(scores, keras.backend.result_type(scores.dtype, "float32"))
    if mask is None:
        return ops.softmax(scores, axis=-1)
    lowest = ops.min(scores, axis=-1, keepdims=True)  # (batch, 1)
    top = ops.max(ops.where(mask, scores, lowest), axis=-1, keepdims=True)  # (batch, 1)
    weights = ops.softmax(ops.where(mask, scores, top + FILL), axis=-1)
    return ops.where(mask, weights, ops.zeros_like(weights))  # zeros for a fully masked row
