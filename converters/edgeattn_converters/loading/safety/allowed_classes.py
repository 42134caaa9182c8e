"""Class, function and module names that a stored configuration may contain.

The allowlists name the layers, initializers and similar objects of Keras itself. Keras classes that
run code, import modules or read files are refused. Any other name is taken for a class of the user,
which is looked up in ``--custom-objects`` and never imported.
"""

import sys


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Layers of Keras 1 to 3 and tf.keras, under the names that files contain.
LAYERS = _names(
    """
    Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
    AddLoss AddMetric
    AdditiveAttention AlphaDropout AtrousConvolution1D AtrousConvolution2D Attention AugMix
    AutoContrast Average AveragePooling1D AveragePooling2D AveragePooling3D AvgPool1D AvgPool2D
    AvgPool3D BatchNormalization BatchNormalizationV1 BatchNormalizationV2 Bidirectional
    CategoryEncoding CenterCrop Concatenate ContrastLimitedAdaptiveHistogramEqualization Conv1D
    Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D
    Convolution1D Convolution1DTranspose Convolution2D Convolution2DTranspose Convolution3D
    Convolution3DTranspose Cropping1D Cropping2D Cropping3D CuDNNGRU CuDNNLSTM CutMix
    Deconvolution2D Dense DepthwiseConv1D DepthwiseConv2D Discretization Dot Dropout ELU EinsumDense
    Embedding Equalization Flatten GRU GRUCell GRUV1 GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalAvgPool1D
    GlobalAvgPool2D GlobalAvgPool3D GlobalMaxPool1D GlobalMaxPool2D GlobalMaxPool3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention
    GroupedQueryAttention HashedCrossing Hashing Highway Identity InputLayer IntegerLookup LSTM
    LSTMCell LSTMV1 Layer LayerNormalization LeakyReLU LocallyConnected1D LocallyConnected2D Masking
    MaxNumBoundingBoxes MaxPool1D MaxPool2D MaxPool3D MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    MaxoutDense MelSpectrogram Merge Minimum MixUp MultiHeadAttention Multiply Normalization PReLU
    ParametricSoftplus Permute Pipeline RMSNormalization RNN RandAugment RandomBrightness
    RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop RandomElasticTransform
    RandomErasing RandomFlip RandomFourierFeatures
    RandomGaussianBlur RandomGrayscale RandomHeight RandomHue RandomInvert
    RandomPerspective RandomPosterization RandomRotation RandomSaturation RandomSharpness
    RandomShear RandomTranslation RandomWidth RandomZoom ReLU RepeatVector Rescaling Reshape
    Resizing ReversibleEmbedding SReLU STFTSpectrogram SeparableConv1D SeparableConv2D
    SeparableConvolution1D SeparableConvolution2D SimpleRNN SimpleRNNCell SlicingOpLambda Softmax
    Solarization SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization
    TFDConcat TFDIdentity
    StackedRNNCells StringLookup Subtract SyncBatchNormalization TFOpLambda TensorFlowOpLayer
    TextVectorization ThresholdedReLU TimeDistributed TimeDistributedDense UnifiedGRU
    UnifiedLSTM UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D Functional Model Sequential
    """
)

# Other objects that occur in the config of a layer.
PARTS = _names(
    """
    Constant GlorotNormal GlorotUniform HeNormal HeUniform IdentityInitializer Initializer
    LecunNormal LecunUniform Ones Orthogonal OrthogonalInitializer RandomNormal RandomUniform STFT
    STFTInitializer TruncatedNormal VarianceScaling Zeros constant glorot_normal glorot_uniform
    he_normal he_uniform identity lecun_normal lecun_uniform ones orthogonal random_normal
    random_uniform truncated_normal variance_scaling zeros Constraint L1 L1L2 L2 MaxNorm
    MinMaxNorm NonNeg OrthogonalRegularizer Regularizer UnitNorm l1 l1_l2 l2 max_norm min_max_norm
    non_neg orthogonal_regularizer stft unit_norm DTypePolicy DTypePolicyMap FloatDTypePolicy Policy
    PolicyV1 QuantizedDTypePolicy QuantizedFloat8DTypePolicy GPTQDTypePolicy AWQDTypePolicy
    Int4DTypePolicy QuantizationConfig Int8QuantizationConfig Int4QuantizationConfig
    Float8QuantizationConfig GPTQConfig AWQConfig AbsMaxQuantizer LossScaleOptimizer
    SeedGenerator TensorShape TypeSpec TensorSpec RaggedTensorSpec SparseTensorSpec
    RadialConstraint radial_constraint __keras_tensor__ __tensor__ __numpy__ __ellipsis__ __slice__
    __tuple__ __typespec__ slice
    """
)

FUNCTIONS = _names(
    """
    celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh
    leaky_relu linear log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink
    softmax softmax_v2 softplus softsign sparse_plus sparse_sigmoid sparsemax squareplus swish
    tanh tanh_shrink threshold dot concat cosine
    """
)

# Keras layers that run code, load a graph or unpickle: always refused.
CODE_CARRYING: dict[str, str] = {
    "TFSMLayer": "runs a TensorFlow graph from another folder",
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "FlaxLayer": "runs a Python function stored in the file",
    "JaxLayer": "runs a Python function stored in the file",
}

EDGEATTN_LAYERS = frozenset({"edgeattn>Attention"})

_KERAS_ROOTS = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras", "keras_core")
# Subpackages of Keras that define models. The others are tools: downloads, backends.
_MODEL_PACKAGES = (
    "layers", "models", "initializers", "regularizers", "constraints", "activations", "ops",
    "dtype_policies", "mixed_precision", "engine", "legacy", "random", "metrics", "losses",
    "optimizers", "quantizers", "feature_column", "distribute", "api",
)  # fmt: skip
# Common libraries: a config that names one calls into it, users define no layers there.
_LIBRARIES = _names(
    """
    builtins __builtin__ numpy scipy pandas tensorflow tensorflow_core torch jax h5py requests
    urllib3 pip setuptools six yaml cloudpickle joblib dill IPython
    """
)


def is_keras_module(module: str) -> bool:
    """Return whether the module belongs to Keras, tf.keras, tf_keras or keras_core."""
    return any(module == root or module.startswith(root + ".") for root in _KERAS_ROOTS)


def is_keras_model_module(module: str) -> bool:
    """Return whether a Keras module defines layers or objects that layers consist of."""
    parts = [part for part in module.split(".") if part not in ("src", "python", "_tf_keras")]
    parts = parts[parts.index("keras") + 1 :] if "keras" in parts else parts[1:]
    return not parts or parts[0] in _MODEL_PACKAGES


def is_library_module(module: str) -> bool:
    """Return whether the module belongs to the standard library or a common library."""
    root = module.split(".", 1)[0]
    return root in _LIBRARIES or root in sys.stdlib_module_names


def is_operation_module(module: str) -> bool:
    """Return whether the module defines tensor operations of Keras 3, such as ``x + y``."""
    return module.startswith(("keras.src.ops.", "keras.ops", "keras.src.random.", "keras.random"))
