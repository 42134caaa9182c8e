"""The sequence lengths of one conversion, each with the files of its samples."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgeattn.bundle.lengths import Lengths, joined
from edgeattn.errors import UsageError
from edgeattn.printable import enumerated
from edgeattn_converters.options import ModelSource, QuantizationOptions, StrPath

# One length for all inputs, or that of each by name.
NamedLengths = int | Mapping[str, int]
# Stands for the sequence length in the paths of samples.
STEPS = "{steps}"


def lengths_by_key(lengths: Sequence[NamedLengths]) -> dict[Lengths, NamedLengths]:
    """The lengths without repetitions, by the numbers in the name of the folder.

    These are in the order of the first mapping. Raises :class:`UsageError` if the lengths do not
    name the same inputs.
    """
    names = [None if isinstance(item, int) else set(item) for item in lengths]
    if any(item != names[0] for item in names):
        listed = enumerated([_option(item) for item in lengths])
        raise UsageError(
            f"{listed} do not name the same inputs.",
            hint="Name every input with a free length in each: --time-steps INPUT=N,INPUT=N",
        )
    by_key: dict[Lengths, NamedLengths] = {}
    order: tuple[str, ...] = ()
    for item in lengths:
        if isinstance(item, int):
            by_key[item] = item
            continue
        order = order or tuple(item)
        by_key[tuple(item[name] for name in order)] = {name: item[name] for name in order}
    return by_key


def _option(lengths: NamedLengths) -> str:
    if isinstance(lengths, int):
        return f"--time-steps {lengths}"
    return f"--time-steps {','.join(f'{name}={size}' for name, size in lengths.items())}"


def check_files_of_lengths(
    source: ModelSource,
    quantization: QuantizationOptions,
    lengths: Mapping[Lengths, NamedLengths],
) -> None:
    """Raise :class:`UsageError` if there is no file of samples for each of several lengths."""
    for file in (source.samples, quantization.calibration):
        if file is not None and STEPS not in str(file):
            raise UsageError(
                f"{file} has sequences of one length, and --time-steps names {len(lengths)}.",
                hint=f"Write {STEPS} in the name in place of the length, for a file of each: "
                f"--calibration 'sequences-{STEPS}.npz'",
            )
    if source.raw_samples is not None or quantization.raw_calibration is not None:
        raise UsageError(
            "--raw-samples and --raw-calibration have sequences of one length, and --time-steps "
            f"names {len(lengths)}.",
            hint="Convert each length separately, with its own samples.",
        )
    for steps, sized in lengths.items():
        for part in of_length(source, quantization, steps, sized):
            part.check_files()


def of_length(
    source: ModelSource, quantization: QuantizationOptions, steps: Lengths, sized: NamedLengths
) -> tuple[ModelSource, QuantizationOptions]:
    """Both for sequences of these lengths, with the files of samples for them."""

    def named(file: StrPath | None) -> str | None:
        return None if file is None else str(file).replace(STEPS, joined(steps))

    source = replace(source, samples=named(source.samples))
    if isinstance(sized, int):
        source = replace(source, time_steps=sized)
    else:
        source = replace(source, lengths=tuple(sized.items()))
    return source, replace(quantization, calibration=named(quantization.calibration))
