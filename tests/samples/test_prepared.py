"""Names of files with prepared samples."""

from pathlib import Path

from edgeattn.samples.prepared import prepared_path, shown_name


def test_the_name_is_that_of_the_raw_file() -> None:
    for name in ("t3.jsonl", "t3.npz", "a.b.csv", "data"):
        path = prepared_path(Path("work"), Path("elsewhere") / name)
        assert (path.parent, path.suffix) == (Path("work"), ".npz")
        assert shown_name(path) == name
    assert shown_name(Path("t3.npz")) == "t3.npz"
