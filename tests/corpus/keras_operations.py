"""One functional model for every operation of ``keras.ops`` that such a model can hold.

Keras cannot run isin, kron and others in a graph of TensorFlow, and so not in ``predict`` either.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from .case import Case, in_group

SHAPE = (6, 5)
Make = Callable[[Any, Any], Any]


def _constant(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype("float32")


ONE_ARGUMENT = {
    "normal": (
        *("abs", "arcsinh", "arctan", "cbrt", "ceil", "cos", "deg2rad", "exp", "exp2", "expm1"),
        *("floor", "isfinite", "isinf", "isnan", "nan_to_num", "negative", "rad2deg", "round"),
        *("sign", "signbit", "sin", "sinc", "sinh", "square", "tanh", "trunc", "cosh"),
        *("celu", "elu", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_tanh"),
        *("leaky_relu", "log_sigmoid", "log_softmax", "relu", "relu6", "selu", "sigmoid", "silu"),
        *("soft_shrink", "softmax", "softplus", "softsign", "sparsemax", "squareplus"),
        *("tanh_shrink", "sparse_plus", "sparse_sigmoid", "erf", "erfc", "logical_not"),
        *("ones_like", "zeros_like", "copy", "tan"),
    ),
    "unit": ("arccos", "arcsin", "arctanh", "erfinv", "log1p"),
    "positive": ("log", "log10", "log2", "reciprocal", "rsqrt", "sqrt", "i0"),
    "large": ("arccosh",),
}
REDUCTIONS = (
    *("all", "any", "argmax", "argmin", "average", "count_nonzero", "max", "mean", "median"),
    *("min", "prod", "ptp", "std", "sum", "var", "logsumexp", "nansum", "nanmax", "nanmean"),
)
TWO_ARGUMENTS = (
    *("add", "subtract", "multiply", "divide", "divide_no_nan", "floor_divide", "mod", "fmod"),
    *("maximum", "minimum", "fmax", "fmin", "arctan2", "hypot", "logaddexp", "logaddexp2"),
    *("equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "isclose"),
    *("logical_and", "logical_or", "logical_xor", "heaviside"),
)
OTHER: dict[str, Make] = {
    "append": lambda o, x: o.append(x, x * 2.0, axis=1),
    "argsort": lambda o, x: o.argsort(x, axis=-1),
    "array_split": lambda o, x: o.array_split(x, 2, axis=1)[0],
    "bincount": lambda o, x: o.bincount(o.cast(o.abs(x[:, :, 0]), "int32"), minlength=4),
    "bitwise_and": lambda o, x: o.cast(
        o.bitwise_and(o.cast(x * 4, "int32"), o.cast(x * 7, "int32")), "float32"
    ),
    "broadcast_to": lambda o, x: o.broadcast_to(_constant(6, 1), (6, 5)) * x,
    "cast": lambda o, x: o.cast(o.cast(x * 3, "int32"), "float32"),
    "clip": lambda o, x: o.clip(x, -0.4, 0.7),
    "concatenate": lambda o, x: o.concatenate([x, x * 2.0], axis=-1),
    "constant minus transpose": lambda o, x: 1.0 - o.transpose(x, (0, 2, 1)),
    "constant by transpose": lambda o, x: 1.0 / (3.5 + o.tanh(o.transpose(x, (0, 2, 1)))),
    "cross": lambda o, x: o.cross(x[..., :3], x[..., 2:]),
    "cumprod": lambda o, x: o.cumprod(x, axis=1),
    "cumsum": lambda o, x: o.cumsum(x, axis=1),
    "diagonal": lambda o, x: o.diagonal(x, axis1=1, axis2=2),
    "diff": lambda o, x: o.diff(x, axis=1),
    "digitize": lambda o, x: o.digitize(x, np.array([-0.5, 0.1, 0.9], "float32")),
    "dot": lambda o, x: o.dot(x, _constant(5, 3)),
    "einsum": lambda o, x: o.einsum("bij,bkj->bik", x, x),
    "expand_dims": lambda o, x: o.expand_dims(x, 2),
    "flip": lambda o, x: o.flip(x, axis=1),
    "full_like": lambda o, x: o.full_like(x, 2.5) * x,
    "glu": lambda o, x: o.glu(x, axis=1),
    "getitem": lambda o, x: x[:, 1:-1:2, ::-1],
    "getitem ellipsis": lambda o, x: x[..., -1],
    "hstack": lambda o, x: o.hstack([x, x * 2.0]),
    "layer_normalization": lambda o, x: o.layer_normalization(x, _constant(5), _constant(5)),
    "linspace": lambda o, x: o.linspace(x[:, 0], x[:, 1], 4, axis=1),
    "matmul": lambda o, x: o.matmul(x, o.transpose(x, (0, 2, 1))),
    "moments": lambda o, x: o.concatenate(o.moments(x, axes=[1]), axis=-1),
    "moveaxis": lambda o, x: o.moveaxis(x, 1, 2),
    "multi_hot": lambda o, x: o.multi_hot(o.cast(o.abs(x[..., 0]), "int32"), 4),
    "norm": lambda o, x: o.norm(x, axis=-1),
    "normalize": lambda o, x: o.normalize(x, axis=1),
    "one_hot": lambda o, x: o.one_hot(o.cast(o.abs(x), "int32"), 4),
    "outer": lambda o, x: o.matmul(o.expand_dims(x, 3), o.expand_dims(x, 2)),
    "pad": lambda o, x: o.pad(x, ((0, 0), (1, 2), (0, 1)), constant_values=0.5),
    "pad reflect": lambda o, x: o.pad(x, ((0, 0), (1, 2), (0, 0)), mode="reflect"),
    "power": lambda o, x: o.power(o.abs(x) + 0.2, 1.7),
    "quantile": lambda o, x: o.quantile(x, 0.3, axis=1),
    "repeat": lambda o, x: o.repeat(x, 2, axis=1),
    "reshape": lambda o, x: o.reshape(x, (-1, 3, 10)),
    "rms_normalization": lambda o, x: o.rms_normalization(x),
    "roll": lambda o, x: o.roll(x, 2, axis=1),
    "rot90": lambda o, x: o.rot90(x, axes=(1, 2)),
    "searchsorted": lambda o, x: o.searchsorted(np.array([-0.5, 0.1, 0.9], "float32"), x[:, 0, 0]),
    "select": lambda o, x: o.select([x < 0.0, x > 1.0], [x * 2.0, x * 3.0], 0.5),
    "slice": lambda o, x: o.slice(x, (0, 1, 2), (-1, 3, 2)) * 1.0,
    "sort": lambda o, x: o.sort(x, axis=-1),
    "split": lambda o, x: o.split(x, 3, axis=1)[1],
    "squeeze": lambda o, x: o.squeeze(x[:, :1], axis=1),
    "stack": lambda o, x: o.stack([x, x * 2.0], axis=2),
    "swapaxes": lambda o, x: o.swapaxes(x, 1, 2),
    "take": lambda o, x: o.take(x, [3, 0, 0, 5], axis=1),
    "take_along_axis": lambda o, x: o.take_along_axis(x, o.argsort(x, axis=1), axis=1),
    "tensordot": lambda o, x: o.tensordot(x, _constant(5, 3), axes=1),
    "threshold": lambda o, x: o.threshold(x, 0.3, -1.0),
    "tile": lambda o, x: o.tile(x, (1, 2, 1)),
    "top_k": lambda o, x: o.top_k(x, 3)[0],
    "top_k indices": lambda o, x: o.top_k(x, 3)[1],
    "trace": lambda o, x: o.trace(x, axis1=1, axis2=2),
    "transpose": lambda o, x: o.transpose(x, (0, 2, 1)),
    "tril": lambda o, x: o.tril(x),
    "triu": lambda o, x: o.triu(x, 1),
    "unstack": lambda o, x: o.unstack(x, axis=1)[2] * 2.0,
    "vdot": lambda o, x: o.sum(x * o.flip(x, axis=1), axis=(1, 2)),
    "where": lambda o, x: o.where(x > 0.1, x, x * -0.5),
    # Images
    "average_pool": lambda o, x: o.average_pool(x, 2, 2),
    "max_pool": lambda o, x: o.max_pool(x, 2, 2, padding="same"),
    "conv": lambda o, x: o.conv(x, _constant(3, 5, 2)),
    "depthwise_conv": lambda o, x: o.depthwise_conv(x, _constant(3, 5, 1), padding="same"),
    "separable_conv": lambda o, x: o.separable_conv(x, _constant(3, 5, 1), _constant(1, 5, 2)),
    "dot_product_attention": lambda o, x: o.dot_product_attention(
        *[o.reshape(x, (-1, 3, 2, 5)) for _ in range(3)]
    ),
    "depth_to_space": lambda o, x: o.depth_to_space(o.reshape(x[..., :4], (-1, 2, 3, 4)), 2),
    "space_to_depth": lambda o, x: o.space_to_depth(o.reshape(x[..., :4], (-1, 2, 4, 3)), 2),
    "image.resize": lambda o, x: o.image.resize(o.expand_dims(x, 3), (4, 7)),
    "image.resize nearest": lambda o, x: o.image.resize(
        o.expand_dims(x, 3), (12, 10), interpolation="nearest"
    ),
    **{
        f"image.resize {method}": lambda o, x, method=method: o.image.resize(
            o.expand_dims(x, 3), (8, 9), interpolation=method
        )
        for method in ("bicubic", "lanczos3", "lanczos5")
    },
    "image.resize antialiased": lambda o, x: o.image.resize(
        o.expand_dims(x, 3), (3, 4), antialias=True
    ),
    "image.extract_patches": lambda o, x: o.image.extract_patches(
        o.expand_dims(x[..., :4], 3), (2, 2)
    ),
    "image.pad_images": lambda o, x: o.image.pad_images(o.expand_dims(x, 3), 1, 2, 8, 9),
    "image.crop_images": lambda o, x: o.image.crop_images(
        o.expand_dims(x, 3), 1, 2, target_height=3, target_width=2
    ),
    "image.rgb_to_grayscale": lambda o, x: o.image.rgb_to_grayscale(
        o.reshape(x[:, :, :3], (-1, 2, 3, 3))
    ),
    "image.sobel_edges": lambda o, x: o.image.sobel_edges(o.expand_dims(x, 3)),
    "image.gaussian_blur": lambda o, x: o.image.gaussian_blur(o.expand_dims(x, 3)),
    # Signals
    "extract_sequences": lambda o, x: o.extract_sequences(x[..., 0], 3, 2),
    "rfft": lambda o, x: o.concatenate(o.rfft(x), axis=-1),
    "stft": lambda o, x: o.stft(o.reshape(x, (-1, 30)), 8, 4, 8)[0],
    "fft": lambda o, x: o.fft((x, o.zeros_like(x)))[0],
    # Linear algebra
    "inv": lambda o, x: o.inv(o.matmul(x, o.transpose(x, (0, 2, 1))) + 3.0 * np.eye(6)),
    "det": lambda o, x: o.det(x[:, :3, :3]),
    "solve": lambda o, x: o.solve(x[:, :3, :3], x[:, :3, 3:]),
    "cholesky": lambda o, x: o.cholesky(o.matmul(x, o.transpose(x, (0, 2, 1))) + 3.0 * np.eye(6)),
    "slogdet": lambda o, x: o.slogdet(x[:, :3, :3])[1],
    "solve_triangular": lambda o, x: o.solve_triangular(x[:, :5, :5], x[:, :5], lower=True),
    "qr": lambda o, x: o.qr(x)[1],
    "float64": lambda o, x: o.cumsum(x * np.arange(5.0), axis=1),
    "cdist": lambda o, x: o.cdist(x, x * 2.0),
}


def _case(name: str, make: Make, values: str = "normal") -> Case:
    def build(keras: Any) -> Any:
        x = keras.Input(SHAPE, name="x")
        # A layer before the operation, because many schemes have nothing to do without weights.
        h = keras.layers.Dense(SHAPE[-1])(x) if values == "normal" else x
        return keras.Model(x, make(keras.ops, h))

    return Case(name, build, values=values, tf_keras=False, schemes=("float32",))


CASES = in_group(
    "operations",
    [
        *(
            _case(name, lambda o, x, name=name: getattr(o, name)(x), values)
            for values, names in ONE_ARGUMENT.items()
            for name in names
        ),
        *(_case(name, lambda o, x, name=name: getattr(o, name)(x, axis=1)) for name in REDUCTIONS),
        *(
            _case(name, lambda o, x, name=name: getattr(o, name)(x, o.flip(x, axis=1)))
            for name in TWO_ARGUMENTS
        ),
        *(_case(name, make) for name, make in OTHER.items()),
    ],
)
