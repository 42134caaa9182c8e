"""Writes the pictures of docs/experiments from the output of the examples."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np

import edgeattn
from edgeattn import plots
from edgeattn.bundle.bundle import Bundle
from edgeattn.errors import EdgeattnError

ROOT = Path(__file__).parent.parent
# Pictures that the examples write themselves.
PICTURES: Mapping[str, Sequence[str]] = {
    "add_two_numbers": ("attention/attention.gif", "attention/over-epochs.png"),
    "find_max": ("find_max.png",),
}


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--format", "kind", default="tflite", show_default=True, help="Format of the artifact."
)
@click.option("--scheme", default="int8", show_default=True, help="Scheme.")
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / ".out" / "examples",
    help="Folder with the output of the examples. Default: .out/examples",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "docs" / "experiments",
    help="Folder for the pictures. Default: docs/experiments",
)
def main(names: Sequence[str], kind: str, scheme: str, runs: Path, output: Path) -> None:
    """Draw the attention of examples in Keras and in an artifact, and copy their own pictures.

    The drawn sample is the one with the median difference.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        bundle = runs / name / "model.edge"
        try:
            weights = maps(bundle, kind, scheme)
        except EdgeattnError as error:
            raise click.ClickException(f"{error}\nRun: python examples/{name}.py") from None
        written = [output / f"{name}-{scheme}.png"]
        plots.save(
            plots.comparison(*weights, names=("Keras", f"{kind} {scheme}")), written[0], dpi=110
        )
        for picture in map(Path, PICTURES.get(name, ())):
            target = output / (picture.name if picture.stem == name else f"{name}-{picture.name}")
            written.append(Path(shutil.copy(runs / name / picture, target)))
        click.echo("\n".join(f"{path.name}: {path.stat().st_size:,} bytes" for path in written))


def maps(bundle: Path, kind: str, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """The attention in Keras and in the artifact of the sample with the median difference."""
    opened = Bundle.open(bundle)
    reference = opened.reference()
    model = edgeattn.load(bundle, format=kind, scheme=scheme)
    name = model.artifact.attention[0]
    pairs = []
    for row in range(int(opened.manifest.reference["samples"])):
        sample = {spec.name: reference[f"input/{spec.name}"][row] for spec in model.inputs}
        pairs.append((reference[name][row], np.array(model(sample)[name][0])))
    differences = [float(np.abs(got - want).max()) for want, got in pairs]
    return pairs[int(np.argsort(differences)[len(pairs) // 2])]


if __name__ == "__main__":
    main()
