"""What results depend on."""

from pathlib import Path

import pytest

import edgeattn
from edgeattn.cluster import versions


def digest(*folders: Path) -> str:
    versions.source_digest.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(versions, "source_folders", lambda: list(folders))
        result = versions.source_digest()
    versions.source_digest.cache_clear()
    return result


def test_changed_code_has_another_digest(tmp_path: Path) -> None:
    package = tmp_path / "edgeattn"
    (package / "part").mkdir(parents=True)
    file = package / "part" / "module.py"
    file.write_text("x = 1\n")
    before = digest(package)
    assert digest(package) == before
    (package / "part" / "__pycache__").mkdir()
    (package / "part" / "__pycache__" / "module.cpython-313.pyc").write_bytes(b"1")
    assert digest(package) == before
    file.write_text("x = 2\n")
    changed = digest(package)
    renamed = file.rename(package / "part" / "other.py")
    moved = digest(package)
    renamed.rename(file)
    (package / "new.py").write_text("")
    added = digest(package)
    assert len({before, changed, moved, added}) == 4


def test_the_digest_does_not_depend_on_where_the_code_is(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "edgeattn").mkdir(parents=True)
        (tmp_path / name / "edgeattn" / "module.py").write_text("x = 1\n")
    assert digest(tmp_path / "one" / "edgeattn") == digest(tmp_path / "two" / "edgeattn")


def test_versions_contain_the_installed_code() -> None:
    reported = versions.package_versions()
    assert reported["edgeattn"] == edgeattn.__version__
    assert reported[versions.SOURCE] == versions.source_digest()
    folders = [path.name for path in versions.source_folders()]
    assert folders == ["edgeattn", "edgeattn_converters"]
