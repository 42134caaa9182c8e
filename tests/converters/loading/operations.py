"""A call of every operation class of Keras 3 that a functional model can contain.

``CALLS`` has the name of the class and what calls it; ``i`` has the inputs of :func:`inputs`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

MODULES = ("core", "nn", "math", "linalg", "numpy", "image", "einops")
# Name: shape of a sample, dtype, lowest and highest value.
INPUTS: Mapping[str, tuple[tuple[int, ...], str, float, float]] = {
    "x": ((4, 6), "float32", -2.0, 2.0),
    "y": ((4, 6), "float32", -2.0, 2.0),
    "u": ((4, 6), "float32", 0.1, 0.9),
    "n": ((4, 6), "int32", 0, 5),
    "square": ((3, 3), "float32", -1.0, 1.0),
    "image": ((8, 8, 3), "float32", 0.0, 1.0),
    "signal": ((64,), "float32", -1.0, 1.0),
}


def inputs() -> SimpleNamespace:
    """Symbolic inputs."""
    return SimpleNamespace(
        **{
            name: keras.Input(shape, dtype=dtype, name=f"in_{name}")
            for name, (shape, dtype, _, _) in INPUTS.items()
        }
    )


def samples(count: int = 3) -> dict[str, np.ndarray]:
    """Values of the inputs; integers have the highest value of INPUTS too."""
    generator = np.random.default_rng(5)
    values = {}
    for name, (shape, dtype, low, high) in INPUTS.items():
        size = (count, *shape)
        if dtype == "int32":
            drawn = generator.integers(int(low), int(high) + 1, size)
        else:
            drawn = generator.uniform(low, high, size)
        values[f"in_{name}"] = drawn.astype(dtype)
    return values


def operation_classes() -> dict[str, type]:
    """All operation classes of ``keras.src.ops`` by name."""
    classes = {}
    for name in MODULES:
        module = importlib.import_module(f"keras.src.ops.{name}")
        for value in vars(module).values():
            is_class = isinstance(value, type) and issubclass(value, keras.Operation)
            if is_class and value.__module__ == module.__name__:
                classes[value.__name__] = value
    return classes


def _positive(square: Any) -> Any:
    """Symmetric, positive definite matrices."""
    return ops.matmul(square, ops.transpose(square, (0, 2, 1))) + 2 * np.eye(3, dtype="float32")


_KERNEL = np.linspace(-1, 1, 3 * 3 * 3 * 2, dtype="float32").reshape(3, 3, 3, 2)
_DEPTHWISE = np.linspace(-1, 1, 3 * 3 * 3, dtype="float32").reshape(3, 3, 3, 1)
_POINTWISE = np.linspace(-1, 1, 3 * 2, dtype="float32").reshape(1, 1, 3, 2)
_TRANSFORM = np.array([[1, 0.1, 0, 0, 1, 0.5, 0, 0]], "float32")
_VECTOR = np.array([0.5, 1.0, 2.0], "float32")

_Call = Callable[[SimpleNamespace], Any]


def _of(function: str, *names: str, **arguments: Any) -> _Call:
    """A call of a function of ``keras.ops`` with inputs."""

    def call(i: SimpleNamespace) -> Any:
        return getattr(ops, function)(*(getattr(i, name) for name in names), **arguments)

    return call


ELEMENTWISE: Mapping[str, _Call] = {
    **{
        name: _of(function, "x")
        for name, function in {
            "Relu": "relu",
            "Relu6": "relu6",
            "Sigmoid": "sigmoid",
            "Softplus": "softplus",
            "SparseSigmoid": "sparse_sigmoid",
            "Softsign": "softsign",
            "SoftShrink": "soft_shrink",
            "SparsePlus": "sparse_plus",
            "Silu": "silu",
            "Squareplus": "squareplus",
            "LogSigmoid": "log_sigmoid",
            "LeakyRelu": "leaky_relu",
            "HardSigmoid": "hard_sigmoid",
            "HardSilu": "hard_silu",
            "Elu": "elu",
            "Selu": "selu",
            "Gelu": "gelu",
            "Celu": "celu",
            "Glu": "glu",
            "TanhShrink": "tanh_shrink",
            "HardTanh": "hard_tanh",
            "HardShrink": "hard_shrink",
            "Softmax": "softmax",
            "LogSoftmax": "log_softmax",
            "Sparsemax": "sparsemax",
            "Normalize": "normalize",
            "Erf": "erf",
            "Erfc": "erfc",
            "Absolute": "absolute",
            "Arctan": "arctan",
            "Arcsinh": "arcsinh",
            "Ceil": "ceil",
            "Cos": "cos",
            "Cosh": "cosh",
            "Copy": "copy",
            "Deg2rad": "deg2rad",
            "Rad2deg": "rad2deg",
            "Exp": "exp",
            "Exp2": "exp2",
            "Expm1": "expm1",
            "Floor": "floor",
            "Isfinite": "isfinite",
            "Isinf": "isinf",
            "Isnan": "isnan",
            "Isneginf": "isneginf",
            "Isposinf": "isposinf",
            "Isreal": "isreal",
            "Negative": "negative",
            "Round": "round",
            "Sign": "sign",
            "Signbit": "signbit",
            "Sin": "sin",
            "Sinc": "sinc",
            "Sinh": "sinh",
            "Square": "square",
            "Tanh": "tanh",
            "Trunc": "trunc",
            "Cbrt": "cbrt",
            "I0": "i0",
            "Conjugate": "conjugate",
            "Real": "real",
            "Imag": "imag",
            "Angle": "angle",
            "NanToNum": "nan_to_num",
            "Fabs": "fabs",
        }.items()
        if hasattr(ops, function)
    },
    **{
        name: _of(function, "u")
        for name, function in {
            "Arccos": "arccos",
            "Arcsin": "arcsin",
            "Arctanh": "arctanh",
            "Erfinv": "erfinv",
            "Log": "log",
            "Tan": "tan",
            "Log10": "log10",
            "Log1p": "log1p",
            "Log2": "log2",
            "Sqrt": "sqrt",
            "Rsqrt": "rsqrt",
            "Reciprocal": "reciprocal",
        }.items()
    },
    "Arccosh": lambda i: ops.arccosh(i.u + 1.0),
    "Threshold": lambda i: ops.threshold(i.x, 0.5, -1.0),
    "Clip": lambda i: ops.clip(i.x, -0.5, 0.7),
    "Cast": lambda i: ops.cast(i.n, "float32"),
    "SaturateCast": lambda i: ops.saturate_cast(i.x * 200, "int8"),
    "ConvertToTensor": lambda i: ops.convert_to_tensor(i.x, dtype="float32"),
    "StopGradient": lambda i: ops.stop_gradient(i.x),
    "OnesLike": lambda i: ops.ones_like(i.x) + i.x,
    "ZerosLike": lambda i: ops.zeros_like(i.x) + i.x,
    "FullLike": lambda i: ops.full_like(i.x, 2.0) + i.x,
    "LogicalNot": lambda i: ops.logical_not(i.x > 0),
    "BitwiseInvert": lambda i: ops.bitwise_invert(i.n),
    "BitwiseNot": lambda i: ops.bitwise_not(i.n),
    "OneHot": lambda i: ops.one_hot(i.n, 6),
    "MultiHot": lambda i: ops.multi_hot(i.n, 6),
}
BINARY: Mapping[str, _Call] = {
    **{
        name: _of(function, "x", "y")
        for name, function in {
            "Add": "add",
            "Subtract": "subtract",
            "Multiply": "multiply",
            "Maximum": "maximum",
            "Minimum": "minimum",
            "Fmax": "fmax",
            "Fmin": "fmin",
            "Equal": "equal",
            "NotEqual": "not_equal",
            "Greater": "greater",
            "GreaterEqual": "greater_equal",
            "Less": "less",
            "LessEqual": "less_equal",
            "Arctan2": "arctan2",
            "Hypot": "hypot",
            "Logaddexp": "logaddexp",
            "Logaddexp2": "logaddexp2",
            "Isclose": "isclose",
            "Heaviside": "heaviside",
            "Nextafter": "nextafter",
        }.items()
        if hasattr(ops, function)
    },
    "Divide": lambda i: ops.divide(i.x, i.u),
    "DivideNoNan": lambda i: ops.divide_no_nan(i.x, i.y),
    "TrueDivide": lambda i: ops.true_divide(i.x, i.u),
    "FloorDivide": lambda i: ops.floor_divide(i.x, i.u),
    "Mod": lambda i: ops.mod(i.x, i.u),
    "Fmod": lambda i: ops.fmod(i.x, i.u),
    "Power": lambda i: ops.power(i.u, i.x),
    "Ldexp": lambda i: ops.ldexp(i.x, i.n),
    "Gcd": lambda i: ops.gcd(i.n, i.n + 2),
    "Lcm": lambda i: ops.lcm(i.n + 1, i.n + 2),
    "LogicalAnd": lambda i: ops.logical_and(i.x > 0, i.y > 0),
    "LogicalOr": lambda i: ops.logical_or(i.x > 0, i.y > 0),
    "LogicalXor": lambda i: ops.logical_xor(i.x > 0, i.y > 0),
    "BitwiseAnd": lambda i: ops.bitwise_and(i.n, i.n + 3),
    "BitwiseOr": lambda i: ops.bitwise_or(i.n, i.n + 3),
    "BitwiseXor": lambda i: ops.bitwise_xor(i.n, i.n + 3),
    "BitwiseLeftShift": lambda i: ops.bitwise_left_shift(i.n, i.n),
    "LeftShift": lambda i: ops.left_shift(i.n, i.n),
    "BitwiseRightShift": lambda i: ops.bitwise_right_shift(i.n + 30, i.n),
    "RightShift": lambda i: ops.right_shift(i.n + 30, i.n),
    "Where": lambda i: ops.where(i.x > 0, i.x, i.y),
    "Select": lambda i: ops.select([i.x > 1, i.x > 0], [i.x, i.y], 0.5),
    "BinaryCrossentropy": lambda i: ops.binary_crossentropy(i.u, i.u * i.u),
    "CategoricalCrossentropy": lambda i: ops.categorical_crossentropy(i.u, i.u * i.u),
    "SparseCategoricalCrossentropy": lambda i: ops.sparse_categorical_crossentropy(
        i.n[:, :, 0], ops.softmax(i.x)
    ),
    "Polar": lambda i: ops.real(ops.polar(i.u, i.x)),
    "PSNR": lambda i: ops.expand_dims(ops.psnr(i.x, i.y, 2.0), 0) + i.x[:, 0],
    "Append": lambda i: ops.append(i.x, i.y, axis=-1),
}
REDUCTIONS: Mapping[str, _Call] = {
    **{
        name: _of(function, "x", axis=1)
        for name, function in {
            "Amax": "amax",
            "Amin": "amin",
            "Argmax": "argmax",
            "Argmin": "argmin",
            "Max": "max",
            "Min": "min",
            "Mean": "mean",
            "Sum": "sum",
            "Prod": "prod",
            "Std": "std",
            "Var": "var",
            "Median": "median",
            "Ptp": "ptp",
            "Cumsum": "cumsum",
            "Cumprod": "cumprod",
            "CountNonzero": "count_nonzero",
            "Argsort": "argsort",
            "Sort": "sort",
            "Nanargmax": "nanargmax",
            "Nanargmin": "nanargmin",
            "Nancumsum": "nancumsum",
            "Nancumprod": "nancumprod",
            "Nanmax": "nanmax",
            "Nanmean": "nanmean",
            "Nanmedian": "nanmedian",
            "Nanmin": "nanmin",
            "Nanprod": "nanprod",
            "Nanstd": "nanstd",
            "Nansum": "nansum",
            "Nanvar": "nanvar",
            "Trapezoid": "trapezoid",
            "Diff": "diff",
            "Average": "average",
            "Norm": "norm",
            "Logsumexp": "logsumexp",
        }.items()
        if hasattr(ops, function)
    },
    "All": lambda i: ops.all(i.x > -1.5, axis=1),
    "Any": lambda i: ops.any(i.x > 1.5, axis=1),
    "Moments": lambda i: ops.moments(i.x, axes=(1,)),
    "Percentile": lambda i: ops.percentile(i.x, 30.0, axis=1),
    "Quantile": lambda i: ops.quantile(i.x, 0.3, axis=1),
    "Nanpercentile": lambda i: ops.nanpercentile(i.x, 30.0, axis=1),
    "Nanquantile": lambda i: ops.nanquantile(i.x, 0.3, axis=1),
    "TopK": lambda i: ops.top_k(i.x, 2),
    "LayerNorm": lambda i: ops.layer_normalization(i.x),
    "RMSNorm": lambda i: ops.rms_normalization(i.x),
    "BatchNorm": lambda i: ops.batch_normalization(
        i.image, _VECTOR, _VECTOR, axis=-1, offset=_VECTOR, scale=_VECTOR
    ),
}
SHAPES: Mapping[str, _Call] = {
    "BroadcastTo": lambda i: ops.broadcast_to(i.x[0, 0], (4, 6)) + i.x,
    "Concatenate": lambda i: ops.concatenate([i.x, i.y], axis=1),
    "Diag": lambda i: ops.diag(i.x[0, 0]) + i.square[:, :1, :1],
    "Diagflat": lambda i: ops.diagflat(i.x[0, 0]) + i.square[:, :1, :1],
    "Diagonal": lambda i: ops.diagonal(i.square, axis1=1, axis2=2),
    "Dstack": lambda i: ops.dstack([i.x, i.y]),
    "ExpandDims": lambda i: ops.expand_dims(i.x, 1),
    "Flip": lambda i: ops.flip(i.x, axis=1),
    "Fliplr": lambda i: ops.fliplr(i.x),
    "GetItem": lambda i: i.x[:, 1:, ::2],
    "Hstack": lambda i: ops.hstack([i.x, i.y]),
    "Meshgrid": lambda i: i.x + ops.meshgrid(ops.arange(6.0), ops.arange(4.0))[0],
    "Moveaxis": lambda i: ops.moveaxis(i.x, 1, 2),
    "Pad": lambda i: ops.pad(i.x, ((0, 0), (1, 2), (0, 1))),
    "Ravel": lambda i: ops.reshape(ops.ravel(i.x), (-1, 24)),
    "Repeat": lambda i: ops.repeat(i.x, 2, axis=1),
    "Reshape": lambda i: ops.reshape(i.x, (-1, 3, 8)),
    "Roll": lambda i: ops.roll(i.x, 2, axis=1),
    "Rot90": lambda i: ops.rot90(i.x, axes=(1, 2)),
    "Split": lambda i: ops.split(i.x, 2, axis=1),
    "ArraySplit": lambda i: ops.array_split(i.x, 3, axis=1),
    "Hsplit": lambda i: ops.hsplit(i.x, 2),
    "Dsplit": lambda i: ops.dsplit(i.x, 2),
    "Squeeze": lambda i: ops.squeeze(i.x[:, :1], axis=1),
    "Stack": lambda i: ops.stack([i.x, i.y], axis=1),
    "Swapaxes": lambda i: ops.swapaxes(i.x, 1, 2),
    "Tile": lambda i: ops.tile(i.x, (1, 2, 1)),
    "Transpose": lambda i: ops.transpose(i.x, (0, 2, 1)),
    "Tril": lambda i: ops.tril(i.x),
    "Triu": lambda i: ops.triu(i.x),
    "Unstack": lambda i: ops.unstack(i.x, axis=1),
    "Take": lambda i: ops.take(i.x, [0, 3, 1], axis=1),
    "Flipud": lambda i: ops.flipud(i.x),
    "Linspace": lambda i: ops.linspace(i.x[:, 0], i.y[:, 0], 4, axis=1),
    "Logspace": lambda i: ops.logspace(i.x[:, 0], i.y[:, 0], 4, axis=1),
    "ScatterUpdate": lambda i: ops.scatter_update(i.x, [[0, 1, 2]], [1.0]),
    "SliceUpdate": lambda i: ops.slice_update(i.x, (0, 0, 0), np.ones((1, 1, 1), "float32")),
    "View": lambda i: ops.view(i.x, dtype="int32"),
    "Vstack": lambda i: ops.vstack([i.x, i.y]),
    "TakeAlongAxis": lambda i: ops.take_along_axis(i.x, i.n, axis=2),
    "DepthToSpace": lambda i: ops.depth_to_space(ops.tile(i.image, (1, 1, 1, 4)), 2),
    "SpaceToDepth": lambda i: ops.space_to_depth(i.image, 2),
    "Slice": lambda i: ops.slice(i.x, (0, 1, 2), (1, 2, 3)),
    "Scatter": lambda i: i.x + ops.scatter([[1, 0]], i.x[0, 0, :1], (4, 6)),
    "ExtractSequences": lambda i: ops.extract_sequences(i.signal, 16, 8),
    "Trace": lambda i: ops.trace(i.square, axis1=1, axis2=2),
    "UnravelIndex": lambda i: ops.unravel_index(i.n, (2, 3)),
    "Unfold": lambda i: ops.unfold(ops.transpose(i.image, (0, 3, 1, 2)), 2),
    "Fold": lambda i: ops.fold(ops.unfold(ops.transpose(i.image, (0, 3, 1, 2)), 2), (8, 8), 2),
}
PRODUCTS: Mapping[str, _Call] = {
    "Dot": lambda i: ops.dot(i.x, np.ones((6, 2), "float32")),
    "Einsum": lambda i: ops.einsum("bij,bkj->bik", i.x, i.y),
    "Matmul": lambda i: ops.matmul(i.x, ops.transpose(i.y, (0, 2, 1))),
    "Tensordot": lambda i: ops.tensordot(i.x, np.ones((6, 2), "float32"), axes=1),
    "Outer": lambda i: ops.outer(i.x[:, 0, 0], np.arange(3, dtype="float32")),
    "Inner": lambda i: ops.inner(i.x, np.ones((2, 6), "float32")),
    "Cross": lambda i: ops.cross(i.square, i.square[:, ::-1]),
    "Kron": lambda i: ops.kron(i.square[0], i.square[0]) + i.square[:, :1, :1],
    "CDist": lambda i: ops.cdist(i.x, i.y),
    "DotProductAttention": lambda i: ops.dot_product_attention(
        i.image, i.image + 0.5, i.image - 0.5
    ),
    "Correlate": lambda i: ops.correlate(i.x[0, 0], i.y[0, 0]) + i.x[:, 0],
    "Vdot": lambda i: ops.vdot(i.x[0, 0], i.y[0, 0]) + i.square[:, :1, :1],
    "Vander": lambda i: ops.vander(i.x[0, 0], N=3) + i.square[:, :1, :1],
}
IMAGES: Mapping[str, _Call] = {
    "MaxPool": lambda i: ops.max_pool(i.image, 2),
    "AveragePool": lambda i: ops.average_pool(i.image, 2),
    "AdaptiveMaxPool": lambda i: ops.adaptive_max_pool(i.image, (3, 4)),
    "AdaptiveAveragePool": lambda i: ops.adaptive_average_pool(i.image, (3, 4)),
    "Conv": lambda i: ops.conv(i.image, _KERNEL, padding="same"),
    "DepthwiseConv": lambda i: ops.depthwise_conv(i.image, _DEPTHWISE),
    "SeparableConv": lambda i: ops.separable_conv(i.image, _DEPTHWISE, _POINTWISE),
    "RGBToGrayscale": lambda i: ops.image.rgb_to_grayscale(i.image),
    "RGBToHSV": lambda i: ops.image.rgb_to_hsv(i.image),
    "HSVToRGB": lambda i: ops.image.hsv_to_rgb(i.image),
    "Resize": lambda i: ops.image.resize(i.image, (5, 6)),
    "AffineTransform": lambda i: ops.image.affine_transform(i.image, _TRANSFORM),
    "ExtractPatches": lambda i: ops.image.extract_patches(i.image, 2),
    "PadImages": lambda i: ops.image.pad_images(i.image, 1, 1, 2, 2),
    "CropImages": lambda i: ops.image.crop_images(i.image, 1, 1, 2, 2),
    "GaussianBlur": lambda i: ops.image.gaussian_blur(i.image, (3, 3), (1.0, 1.0)),
    "SobelEdges": lambda i: ops.image.sobel_edges(i.image),
    "ScaleAndTranslate": lambda i: ops.image.scale_and_translate(
        i.image, (3, 6, 6, 3), np.ones(2, "float32"), np.zeros(2, "float32"), (1, 2), "linear"
    ),
    "SSIM": lambda i: ops.image.ssim(i.image, i.image * i.image, 1.0, filter_size=3),
}
SIGNALS: Mapping[str, _Call] = {
    "RFFT": lambda i: ops.rfft(i.signal),
    "IRFFT": lambda i: ops.irfft((i.signal, i.signal * i.signal)),
    "FFT": lambda i: ops.fft((i.signal, i.signal * i.signal)),
    "FFT2": lambda i: ops.fft2((i.x, i.y)),
    "IFFT2": lambda i: ops.ifft2((i.x, i.y)),
    "STFT": lambda i: ops.stft(i.signal, 16, 8, 16),
    "ISTFT": lambda i: ops.istft(ops.stft(i.signal, 16, 8, 16), 16, 8, 16),
}
SEARCHES: Mapping[str, _Call] = {
    "Digitize": lambda i: ops.digitize(i.x, np.array([-1.0, 0.0, 1.0], "float32")),
    "SearchSorted": lambda i: (
        ops.searchsorted(np.array([-1.0, 0.0, 1.0], "float32"), i.x[0, 0]) + i.x[:, 0]
    ),
    "Bincount": lambda i: ops.bincount(i.n[:, 0], minlength=6),
    "InTopK": lambda i: ops.in_top_k(i.n[:, 0, 0], i.x[:, 0], 2),
    "SegmentSum": lambda i: ops.segment_sum(i.x[0], i.n[0, :, 0], 6) + i.x[:, :1],
    "SegmentMin": lambda i: ops.segment_min(i.x[0], i.n[0, :, 0] * 0, 1) + i.x[:, :1],
    "SegmentProd": lambda i: ops.segment_prod(i.x[0], i.n[0, :, 0] * 0, 1) + i.x[:, :1],
    "SegmentMax": lambda i: ops.segment_max(i.x[0], i.n[0, :, 0] * 0, 1) + i.x[:, :1],
}
MATRICES: Mapping[str, _Call] = {
    "Cholesky": lambda i: ops.cholesky(_positive(i.square)),
    "CholeskyInverse": lambda i: ops.cholesky_inverse(ops.cholesky(_positive(i.square))),
    "Det": lambda i: ops.det(_positive(i.square)),
    "Eigh": lambda i: ops.eigh(_positive(i.square))[0],
    "Inv": lambda i: ops.inv(_positive(i.square)),
    "Logdet": lambda i: ops.logdet(_positive(i.square)),
    "Qr": lambda i: ops.qr(_positive(i.square))[1],
    "Slogdet": lambda i: ops.slogdet(_positive(i.square)),
    "Solve": lambda i: ops.solve(_positive(i.square), i.square),
    "SolveTriangular": lambda i: ops.solve_triangular(
        ops.cholesky(_positive(i.square)), i.square, lower=True
    ),
    "SVD": lambda i: ops.svd(_positive(i.square))[1],
    "Pinv": lambda i: ops.pinv(_positive(i.square)),
    "MatrixRank": lambda i: ops.matrix_rank(_positive(i.square)),
    "Lstsq": lambda i: ops.lstsq(i.square[0], i.square[0]) + i.square,
}
GROUPS = {
    "elementwise": ELEMENTWISE,
    "binary": BINARY,
    "reductions": REDUCTIONS,
    "shapes": SHAPES,
    "products": PRODUCTS,
    "images": IMAGES,
    "signals": SIGNALS,
    "searches": SEARCHES,
    "matrices": MATRICES,
}
_TAKE_FUNCTIONS = (
    "Map Scan AssociativeScan WhileLoop ForiLoop Cond Switch VectorizedMap JVP"  # Python functions
)
_OTHER_NAMES = "Abs Conj SegmentReduction"  # base classes, and names of other classes
_CONSTANT = "Arange Array Full EmptyLike Ndim Size AllClose Corrcoef"  # of shapes, or of no tensor
_OF_VALUES = "Nonzero Unique Histogram"  # the shape of the result depends on values
_FAIL_IN_KERAS = (  # with a free batch, or on CPUs
    "Argpartition ConvTranspose Eig Geomspace IsIn LuFactor Rearrange ViewAsComplex ViewAsReal "
    "Vsplit"
)
_OTHERS = "CTCLoss CTCDecode ElasticTransform MapCoordinates PerspectiveTransform"
EXCLUDED = " ".join(
    (_TAKE_FUNCTIONS, _OTHER_NAMES, _CONSTANT, _OF_VALUES, _FAIL_IN_KERAS, _OTHERS)
).split()
