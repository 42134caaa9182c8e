"""Writes the pictures of docs/experiments from what the examples left in .out/examples."""

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
# What an example drew itself, in its folder.
DRAWN: Mapping[str, Sequence[str]] = {
    "add_two_numbers": ("attention/attention.gif", "attention/over-epochs.png"),
    "find_max": ("find_max.png",),
}


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--format", "kind", default="tflite", show_default=True, help="Of the artifact.")
@click.option("--scheme", default="int8", show_default=True, help="Of the artifact.")
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / ".out" / "examples",
    help="The folder with a folder for each example. Default: .out/examples",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=ROOT / "docs" / "experiments",
    help="Takes the pictures. Default: docs/experiments",
)
def main(names: Sequence[str], kind: str, scheme: str, runs: Path, output: Path) -> None:
    """Draw each example's attention in Keras and in an artifact, and copy what it drew itself.

    Of the bundle's samples, the one is drawn whose map differs by the median.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        bundle = runs / name / "model.edge"
        try:
            weights = maps(bundle, kind, scheme)
        except EdgeattnError as error:
            raise click.ClickException(
                f"{error}\nMake it with: python examples/{name}.py"
            ) from None
        made = [output / f"{name}-{scheme}.png"]
        plots.save(
            plots.comparison(*weights, names=("Keras", f"{kind} {scheme}")), made[0], dpi=110
        )
        for drawn in map(Path, DRAWN.get(name, ())):
            target = output / (drawn.name if drawn.stem == name else f"{name}-{drawn.name}")
            made.append(Path(shutil.copy(runs / name / drawn, target)))
        click.echo("\n".join(f"{path.name}: {path.stat().st_size:,} bytes" for path in made))


def maps(bundle: Path, kind: str, scheme: str) -> tuple[np.ndarray, np.ndarray]:
    """One sample's map, Keras' and the artifact's: of all samples', the pair in the middle."""
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
