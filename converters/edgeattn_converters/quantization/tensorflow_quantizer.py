"""TensorFlow's own quantizer for ``.tflite`` files, with ranges that were measured before."""

from edgeattn_converters.graphs.tflite_cleanup import sort_conversions
from edgeattn_converters.graphs.tflite_file import TFLiteFile
from edgeattn_converters.quantization.activation_scales import use_measured_scales
from edgeattn_converters.quantization.float_operators import quantizable_tensors
from edgeattn_converters.quantization.mask_fills import limit_fills
from edgeattn_converters.quantization.ranges import Ranges, annotate, ranges_by_name
from edgeattn_converters.quantization.same_scales import with_common_ranges
from edgeattn_converters.quantization.split_slices import join_slices, slice_splits


def quantized_by_tensorflow(
    file: TFLiteFile,
    ranges: Ranges,
    float_names: set[str],
    measured: tuple[TFLiteFile, Ranges],
    *,
    per_channel_dense: bool,
) -> TFLiteFile:
    """The int8 file of a float32 ``file``, which is changed, with these ``ranges`` of its tensors.

    Operators of ``float_names`` stay float32. ``measured`` are the float32 file that ranges
    were measured in, and these ranges.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert import mlir_quantize

    quantizable = quantizable_tensors(file, float_names)
    known = {i: item for i, item in ranges.items() if i in quantizable}
    annotate(file, with_common_ranges(file, known, float_names))
    for operator in file.main.operators:
        if file.name(file.main.tensors[int(operator.outputs[0])]) not in float_names:
            limit_fills(file, file.main, operator, known)
    denied = slice_splits(file, float_names)
    names = [file.name(file.main.tensors[int(i)]) for i in file.main.outputs]
    content = mlir_quantize(
        file.pack(),
        input_data_type=tf.float32,
        output_data_type=tf.float32,
        denylisted_nodes=denied or None,
        disable_per_channel_for_dense_layers=not per_channel_dense,
    )
    quantized = TFLiteFile(bytes(content))
    sort_conversions(quantized)
    join_slices(quantized)
    use_measured_scales(quantized, ranges_by_name(*measured, quantized))
    # The quantizer keeps the order of the outputs but not every name. An output that is an
    # unchanged input has lost its own tensor.
    used = {int(i) for i in quantized.main.inputs}
    indices = []
    for index, name in zip(map(int, quantized.main.outputs), names, strict=True):
        own = quantized.copy_tensor(index) if index in used else index
        used.add(own)
        quantized.main.tensors[own].name = name
        indices.append(own)
    quantized.main.outputs = indices
    return quantized
