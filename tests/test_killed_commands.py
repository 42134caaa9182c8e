"""Commands that are killed before any change of the disk, and abandoned files of killed ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import artifacts
import pytest

from edgeattn import files
from edgeattn.bundle import cache, packing
from edgeattn.bundle.bundle import Bundle
from edgeattn.bundle.writer import new_bundle
from edgeattn.errors import OutputError, OutputInUseError

TESTS = Path(__file__).parent


def python(*arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        **options,  # type: ignore[call-overload]
    )


@pytest.mark.parametrize(
    ("scenario", "at_least"),
    [
        ("new", 10),
        pytest.param("replace", 15, marks=pytest.mark.long),
        pytest.param("replace-without-exchange", 15, marks=pytest.mark.long),
        ("pack", 4),
        pytest.param("unpack", 20, marks=pytest.mark.long),
        ("sign", 6),
        pytest.param("validate", 20, marks=pytest.mark.long),
        pytest.param("convert", 15, marks=pytest.mark.long),
        pytest.param("tune", 30, marks=pytest.mark.long),
    ],
)
def test_killed_at_every_change_of_the_disk(scenario, at_least, tmp_path):
    process = python(TESTS / "killed_commands.py", tmp_path, scenario)
    result = json.loads(process.communicate()[0])
    assert result["violations"] == []
    assert result["changes"]["kills"] >= at_least
    assert (result["changes"]["of workers"] > 0) == (scenario in ("convert", "tune"))


def test_tune_has_all_tasks_of_the_worker(tmp_path):
    """Without kills, which take long: the tasks of ``fake_tasks`` are those that ``tune`` calls."""
    process = python(TESTS / "killed_commands.py", tmp_path, "tune", "undisturbed")
    process.communicate()
    assert process.returncode == 0
    assert (tmp_path / "a.edge").is_dir()


def listing(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def writer(tmp_path):
    """Another process that is in the middle of writing ``a.edge`` and ``a.json``."""
    program = """
        import sys
        from pathlib import Path
        from edgeattn.bundle.writer import new_bundle
        from edgeattn.files import atomic_write
        with new_bundle(Path("a.edge")) as folder, atomic_write(Path("a.json")) as file:
            (folder / "x").write_text("x")
            print("writing", flush=True)
            sys.stdin.read()
    """
    process = python("-c", "if True:" + program, cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    yield process
    process.kill()
    process.communicate()


def test_concurrent_writes_of_one_bundle_are_refused(tmp_path, writer):
    with (
        pytest.raises(OutputInUseError, match="Another process is writing"),
        new_bundle(tmp_path / "a.edge"),
    ):
        pytest.fail("two processes write one bundle")
    with new_bundle(tmp_path / "b.edge"):
        pass
    files.write_text(tmp_path / "a.json", "mine")
    assert len(list(tmp_path.glob(".a.json.*"))) == 1, "the file of a live process was removed"
    writer.communicate("")
    assert listing(tmp_path) == ["a.edge", "a.edge/x", "a.json", "b.edge"]


def test_the_next_write_removes_what_a_killed_one_left(tmp_path, writer):
    before = {
        name: (tmp_path / name)
        for name in (".a.json.autosave", ".a.json.bak.edgeattn", ".b.json.12345678.edgeattn")
    }
    for path in before.values():
        path.write_text("of the user, or of another target")
    writer.kill()
    writer.wait()
    assert len(list(tmp_path.iterdir())) == 2 + len(before)
    files.write_text(tmp_path / "a.json", "mine")
    with new_bundle(tmp_path / "a.edge"):
        pass
    assert listing(tmp_path) == sorted([*before, "a.edge", "a.json"])


def test_a_bundle_that_appears_during_the_conversion_is_not_replaced(tmp_path):
    target = tmp_path / "a.edge"
    with pytest.raises(OutputError, match="exists"), new_bundle(target):
        artifacts.write_dense_bundle(target)
    Bundle.open(target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.edge"]


def test_without_locks_nothing_of_others_is_removed(tmp_path, monkeypatch):
    """As on file systems without locks, where nothing shows what is in use."""
    monkeypatch.setattr(files, "try_lock", lambda handle, **options: None)
    with new_bundle(tmp_path / "a.edge", force=True) as first:
        (first / "x").write_text("x")
        with new_bundle(tmp_path / "a.edge", force=True) as second:
            assert first != second
        assert (first / "x").is_file()


# The cache of unpacked bundles


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_held", {})
    return tmp_path / "cache/edgeattn/unpacked"


def release():
    for lock in cache._held.values():
        os.close(lock)
    cache._held.clear()


def unpacked(tmp_path, number, age_s=0.0):
    """The folder of a new bundle in the cache, last opened ``age_s`` seconds ago."""
    bundle = artifacts.write_dense_bundle(tmp_path / f"{number}.edge", count=7 + number)
    packing.pack(bundle, tmp_path / f"{number}.zip")
    entry = Bundle.open(tmp_path / f"{number}.zip").path.parent
    os.utime(entry / ".lock", (time.time() - age_s,) * 2)
    return entry


def test_bundles_that_were_not_opened_for_long_are_removed(tmp_path, root):
    old = unpacked(tmp_path, 0, age_s=cache.MAX_AGE_S + 60)
    recent = unpacked(tmp_path, 1, age_s=cache.MAX_AGE_S - 600)
    release()
    (root / "notes").mkdir()
    new = unpacked(tmp_path, 2)
    assert sorted(root.iterdir()) == sorted([recent, new, root / "notes"])
    assert not old.exists()


def test_the_longest_unused_bundles_are_removed_if_all_are_too_large(tmp_path, root, monkeypatch):
    entries = [unpacked(tmp_path, number, age_s=100.0 * (9 - number)) for number in range(4)]
    Bundle.open(tmp_path / "0.zip")  # now the last one that was opened
    release()
    monkeypatch.setattr(cache, "MAX_BYTES", int(3.5 * cache._size(entries[3])))
    new = unpacked(tmp_path, 5)
    assert sorted(root.iterdir()) == sorted([entries[0], entries[3], new])


def test_a_bundle_in_use_is_never_removed(tmp_path, root, monkeypatch):
    monkeypatch.setattr(cache, "MAX_BYTES", 0)
    used = unpacked(tmp_path, 0, age_s=2 * cache.MAX_AGE_S)  # by this process
    program = (
        "import edgeattn, sys; m = edgeattn.load('1.zip'); print(flush=True); sys.stdin.read()"
    )
    unpacked(tmp_path, 1)
    other = python("-c", program, cwd=tmp_path)
    assert other.stdout is not None
    other.stdout.readline()
    mine = cache._held.pop(next(path for path in cache._held if path != used))
    os.close(mine)
    new = unpacked(tmp_path, 2)
    assert len(list(root.iterdir())) == 3
    other.communicate("")
    cache.prune(root)
    assert sorted(root.iterdir()) == sorted([used, new])


def test_the_size_of_a_folder_that_is_removed_meanwhile(tmp_path, monkeypatch):
    """Another process renames its folder when it has unpacked a bundle."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"12345")
    original = os.scandir

    def scandir(folder):
        if str(folder) == str(tmp_path / "b"):
            shutil.rmtree(tmp_path / "b", ignore_errors=True)
        return original(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    assert cache._size(tmp_path) == 10


@pytest.fixture
def removals(monkeypatch):
    """Folders that another process removes when ``mkdir`` has failed because they exist."""
    folders, mkdir = [], os.mkdir

    def mkdir_and_remove(path, mode=0o777, *arguments, **options):
        try:
            mkdir(path, mode, *arguments, **options)
        except FileExistsError:
            if Path(path) in folders:
                folders.remove(Path(path))
                shutil.rmtree(path)
            raise

    monkeypatch.setattr(os, "mkdir", mkdir_and_remove)
    return folders


def test_a_folder_that_another_process_removes_meanwhile_is_created(tmp_path, removals):
    (tmp_path / "parent" / "child").mkdir(parents=True)
    removals.append(tmp_path / "parent" / "child")
    files.make_folder(tmp_path / "parent" / "child")
    assert not removals
    assert (tmp_path / "parent" / "child").is_dir()


def test_a_reserved_folder_that_another_process_removes_meanwhile(tmp_path, removals):
    files.hidden_folder(tmp_path / "a").mkdir()
    removals.append(files.hidden_folder(tmp_path / "a"))
    with files.reserved(tmp_path / "a") as folder:
        assert folder.is_dir()
    assert not removals


def test_an_entry_of_the_cache_that_another_process_removes_meanwhile(root, removals):
    entry = root / ("0" * 64)
    entry.mkdir(parents=True)
    removals.append(entry)
    cache.hold(root, entry.name)
    os.close(cache._held.pop(entry))
    assert not removals
    assert (entry / cache._LOCK).is_file()


@pytest.mark.parametrize("name", ["file", "link", "file/folder", "link/folder"])
def test_a_folder_where_a_file_or_a_dangling_link_is(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        files.make_folder(tmp_path / name)


def test_a_folder_that_the_system_never_creates(tmp_path, monkeypatch):
    def refuse(path, mode=0o777):
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(FileNotFoundError):
        files.make_folder(tmp_path / "folder")


def test_several_threads_unpack_one_bundle(tmp_path, root):
    packing.pack(artifacts.write_dense_bundle(tmp_path / "a.edge"), tmp_path / "a.zip")
    opened = []
    threads = [
        threading.Thread(target=lambda: opened.append(Bundle.open(tmp_path / "a.zip").path))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 6
    assert len(set(opened)) == 1
    assert sorted(path.name for path in opened[0].parent.iterdir()) == [".lock", "a"]
