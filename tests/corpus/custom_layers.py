"""Layers that users write themselves; the file that ``--custom-objects`` receives."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable("corpus")
class TokenAndPositionEmbedding(layers.Layer):
    """Embeddings of tokens plus embeddings of their positions."""

    def __init__(self, length, tokens, width, **kwargs):
        super().__init__(**kwargs)
        self.sizes = {"length": length, "tokens": tokens, "width": width}
        self.token = layers.Embedding(tokens, width)
        self.position = layers.Embedding(length, width)

    def call(self, x):
        return self.token(x) + self.position(ops.arange(0, ops.shape(x)[-1]))

    def get_config(self):
        return {**super().get_config(), **self.sizes}


@keras.saving.register_keras_serializable("corpus")
class TransformerBlock(layers.Layer):
    def __init__(self, width, heads, hidden, **kwargs):
        super().__init__(**kwargs)
        self.sizes = {"width": width, "heads": heads, "hidden": hidden}
        self.attention = layers.MultiHeadAttention(heads, width)
        self.forward = keras.Sequential([layers.Dense(hidden, "relu"), layers.Dense(width)])
        self.first, self.second = layers.LayerNormalization(), layers.LayerNormalization()
        self.dropout = layers.Dropout(0.1)

    def call(self, x, training=None):
        x = self.first(x + self.dropout(self.attention(x, x), training=training))
        return self.second(x + self.dropout(self.forward(x), training=training))

    def get_config(self):
        return {**super().get_config(), **self.sizes}


@keras.saving.register_keras_serializable("corpus")
class Patches(layers.Layer):
    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = size

    def call(self, images):
        _, height, width, channels = images.shape
        patches = ops.image.extract_patches(images, size=self.size)
        count = (height // self.size) * (width // self.size)
        return ops.reshape(patches, (-1, count, self.size * self.size * channels))

    def get_config(self):
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable("corpus")
class PatchEncoder(layers.Layer):
    def __init__(self, count, width, **kwargs):
        super().__init__(**kwargs)
        self.count, self.width = count, width
        self.projection = layers.Dense(width)
        self.position = layers.Embedding(count, width)

    def call(self, patches):
        positions = ops.expand_dims(ops.arange(0, self.count), axis=0)
        return self.projection(patches) + self.position(positions)

    def get_config(self):
        return {**super().get_config(), "count": self.count, "width": self.width}


@keras.saving.register_keras_serializable("corpus")
class SinePositions(layers.Layer):
    """Adds the sines and cosines of the first transformer."""

    def call(self, x):
        _, steps, width = x.shape
        position = ops.expand_dims(ops.arange(steps, dtype="float32"), 1)
        rate = ops.exp(ops.arange(0, width, 2, dtype="float32") * (-9.21 / width))
        angle = position * rate
        waves = ops.stack([ops.sin(angle), ops.cos(angle)], axis=-1)
        return x + ops.reshape(waves, (1, steps, width))


@keras.saving.register_keras_serializable("corpus")
class RotaryAttention(layers.Layer):
    """Causal attention with rotated queries and keys."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.query, self.key = layers.Dense(width), layers.Dense(width)
        self.value = layers.Dense(width)

    def rotate(self, x):
        half = self.width // 2
        rate = ops.power(100.0, -ops.arange(half, dtype="float32") / half)
        angle = ops.expand_dims(ops.arange(x.shape[1], dtype="float32"), 1) * rate
        left, right = x[..., :half], x[..., half:]
        cos, sin = ops.cos(angle), ops.sin(angle)
        return ops.concatenate([left * cos - right * sin, left * sin + right * cos], axis=-1)

    def call(self, x):
        query, key = self.rotate(self.query(x)), self.rotate(self.key(x))
        scores = ops.matmul(query, ops.transpose(key, (0, 2, 1))) / self.width**0.5
        steps = x.shape[1]
        causal = ops.tril(ops.ones((steps, steps)))
        weights = ops.softmax(ops.where(causal > 0, scores, -1e9))
        return ops.matmul(weights, self.value(x))

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("corpus")
class SumAttention(layers.Layer):
    """Weights of one vector over the steps, and the weighted sum; respects a mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], shape[-1]), name="w")
        self.b = self.add_weight(shape=(shape[-1],), name="b")
        self.u = self.add_weight(shape=(shape[-1],), name="u")

    def call(self, x, mask=None):
        hidden = ops.tanh(ops.dot(x, self.w) + self.b)
        weights = ops.exp(ops.sum(hidden * self.u, axis=-1))
        if mask is not None:
            weights = weights * ops.cast(mask, weights.dtype)
        weights = weights / (ops.sum(weights, axis=1, keepdims=True) + 1e-7)
        return ops.sum(x * ops.expand_dims(weights, -1), axis=1)

    def compute_mask(self, x, mask=None):
        return None


@keras.saving.register_keras_serializable("corpus")
class SelfAttentionWithHistory(layers.Layer):
    """Local additive self-attention whose mask is computed from two position tensors."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.score = layers.Dense(1)
        self.query, self.key = layers.Dense(6), layers.Dense(6)

    def call(self, x):
        steps = x.shape[1]
        lower = ops.arange(steps, dtype="float32") - self.width // 2
        index = ops.ones((steps, 1)) * ops.expand_dims(ops.arange(steps, dtype="float32"), 0)
        allowed = ops.cast(index >= ops.expand_dims(lower, 1), "float32")
        hidden = ops.tanh(ops.expand_dims(self.query(x), 2) + ops.expand_dims(self.key(x), 1))
        scores = ops.squeeze(self.score(hidden), -1)
        scores = scores - 10000.0 * (1.0 - allowed)
        scores = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True))
        weights = scores / ops.sum(scores, axis=-1, keepdims=True)
        return ops.matmul(weights, x)

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable("corpus")
class ViterbiDecoder(layers.Layer):
    """Best path of a linear-chain conditional random field, as one-hot tags."""

    def build(self, shape):
        self.steps, self.tags = shape[1], shape[2]
        self.transitions = self.add_weight(shape=(shape[2], shape[2]), name="transitions")

    def call(self, scores):
        best, backpointers = scores[:, 0], []
        for step in range(1, self.steps):
            paths = ops.expand_dims(best, 2) + self.transitions
            backpointers.append(ops.argmax(paths, axis=1))
            best = ops.max(paths, axis=1) + scores[:, step]
        tag = ops.argmax(best, axis=-1)
        path = [tag]
        for pointer in reversed(backpointers):
            tag = ops.sum(ops.one_hot(tag, self.tags, dtype="int32") * pointer, axis=-1)
            path.append(tag)
        return ops.one_hot(ops.stack(path[::-1], axis=1), self.tags)


@keras.saving.register_keras_serializable("corpus")
class GatedResidual(layers.Layer):
    """Gated residual network of the temporal fusion transformer."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.elu, self.linear = layers.Dense(units, "elu"), layers.Dense(units)
        self.value, self.gate = layers.Dense(units), layers.Dense(units, "sigmoid")
        self.project, self.norm = layers.Dense(units), layers.LayerNormalization()

    def call(self, x):
        h = self.linear(self.elu(x))
        return self.norm(self.project(x) + self.value(h) * self.gate(h))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("corpus")
class Sampling(layers.Layer):
    """Draws from a normal distribution in training, and returns its mean otherwise."""

    def call(self, inputs, training=False):
        mean, log_variance = inputs
        if not training:
            return mean
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean))


@keras.saving.register_keras_serializable("corpus")
class Fourier(layers.Layer):
    """Mixes steps and features with a Fourier transform."""

    def call(self, x):
        return ops.fft2((x, ops.zeros_like(x)))[0]


@keras.saving.register_keras_serializable("corpus")
class MinimalGatedCell(layers.Layer):
    """A recurrent cell of the user."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 2 * self.units), name="kernel")
        self.recurrent = self.add_weight(shape=(self.units, 2 * self.units), name="recurrent")

    def call(self, x, states):
        (h,) = states
        forget, candidate = ops.split(ops.matmul(x, self.kernel), 2, axis=-1)
        left, right = ops.split(ops.matmul(h, self.recurrent), 2, axis=-1)
        gate = ops.sigmoid(forget + left)
        h = (1.0 - gate) * h + gate * ops.tanh(candidate + gate * right)
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("corpus")
class RelativeAttention(layers.Layer):
    """Attention with a learned bias for each distance between query and key."""

    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        self.query, self.key, self.value = (layers.Dense(width, use_bias=False) for _ in range(3))
        self.output_projection = layers.Dense(width)

    def build(self, shape):
        self.steps = shape[1]
        self.bias = self.add_weight(shape=(2 * shape[1] - 1, self.heads), name="bias")

    def split(self, x):
        x = ops.reshape(x, (-1, self.steps, self.heads, self.width // self.heads))
        return ops.transpose(x, (0, 2, 1, 3))

    def call(self, x):
        query, key, value = (self.split(part(x)) for part in (self.query, self.key, self.value))
        scores = ops.einsum("bhid,bhjd->bhij", query, key) / (self.width // self.heads) ** 0.5
        positions = ops.arange(self.steps)
        distance = positions[:, None] - positions[None] + self.steps - 1
        scores = scores + ops.transpose(ops.take(self.bias, distance, axis=0), (2, 0, 1))
        context = ops.transpose(ops.matmul(ops.softmax(scores), value), (0, 2, 1, 3))
        return self.output_projection(ops.reshape(context, (-1, self.steps, self.width)))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads}


@keras.saving.register_keras_serializable("corpus")
class InterleavedRotaryAttention(layers.Layer):
    """Heads with rotated pairs of neighboring features, and a causal mask that is added."""

    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        self.width, self.heads = width, heads
        self.projection = layers.Dense(3 * width, use_bias=False)
        self.output_projection = layers.Dense(width, use_bias=False)

    def rotate(self, x):
        steps, size = x.shape[2:]
        rate = 1.0 / 10000.0 ** (ops.arange(0, size, 2, dtype="float32") / size)
        angle = ops.arange(steps, dtype="float32")[:, None] * rate
        sin, cos = (ops.repeat(f(angle), 2, axis=-1) for f in (ops.sin, ops.cos))
        pairs = ops.reshape(x, (-1, self.heads, steps, size // 2, 2))
        turned = ops.stack([-pairs[..., 1], pairs[..., 0]], axis=-1)
        return x * cos + ops.reshape(turned, (-1, self.heads, steps, size)) * sin

    def call(self, x):
        steps, size = x.shape[1], self.width // self.heads
        parts = ops.reshape(self.projection(x), (-1, steps, 3, self.heads, size))
        query, key, value = (ops.transpose(parts[:, :, k], (0, 2, 1, 3)) for k in range(3))
        scores = ops.matmul(self.rotate(query), ops.transpose(self.rotate(key), (0, 1, 3, 2)))
        scores = scores * size**-0.5 + ops.triu(ops.full((steps, steps), -1e9), 1)
        context = ops.transpose(ops.matmul(ops.softmax(scores), value), (0, 2, 1, 3))
        return self.output_projection(ops.reshape(context, (-1, steps, self.width)))

    def get_config(self):
        return {**super().get_config(), "width": self.width, "heads": self.heads}


@keras.saving.register_keras_serializable("corpus")
class ClassToken(layers.Layer):
    """A learned first position, and embeddings of all positions."""

    def build(self, shape):
        self.token = self.add_weight(shape=(1, 1, shape[-1]), name="token")
        self.position = self.add_weight(shape=(1, shape[1] + 1, shape[-1]), name="position")

    def call(self, x):
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1) + self.position
