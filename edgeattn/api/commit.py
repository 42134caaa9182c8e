"""The commit that is checked out in a folder, read without running git."""

from __future__ import annotations

import re
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# Bytes; files of git with one line, and its list of packed branches.
MAX_LINE, MAX_PACKED = 4096, 10_000_000


def checked_out_commit(folder: Path) -> tuple[str, Path] | None:
    """The commit of the git repository that contains ``folder``, and the repository's folder.

    None if there is no repository, or no commit yet. Changes after the commit are not noticed.
    """
    folder = folder.absolute()
    for root in (folder, *folder.parents):
        git = root / ".git"
        if not git.exists():
            continue
        try:
            commit = _head(_git_folder(git))
        except (OSError, UnicodeDecodeError, ValueError):
            commit = None
        return None if commit is None else (commit, root)
    return None


def _git_folder(git: Path) -> Path:
    """``.git``, or the folder that it names if it is a file, as in a worktree."""
    if git.is_dir():
        return git
    return git.parent / _line(git).removeprefix("gitdir: ")


def _head(git: Path) -> str | None:
    head = _line(git / "HEAD")
    if COMMIT.fullmatch(head):
        return head
    reference = head.removeprefix("ref: ")
    if reference == head or ".." in Path(reference).parts:
        return None
    # A worktree has a HEAD of its own, and shares the branches.
    common = git / _line(git / "commondir") if (git / "commondir").is_file() else git
    if (common / reference).is_file():
        commit = _line(common / reference)
        return commit if COMMIT.fullmatch(commit) else None
    packed = common / "packed-refs"
    for line in _text(packed, MAX_PACKED).splitlines() if packed.is_file() else ():
        commit, _, name = line.partition(" ")
        if name == reference and COMMIT.fullmatch(commit):
            return commit
    return None


def _line(path: Path) -> str:
    return _text(path, MAX_LINE).strip()


def _text(path: Path, limit: int) -> str:
    with path.open("rb") as file:
        return file.read(limit).decode("utf-8")
