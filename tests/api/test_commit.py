"""The commit of a repository, compared with what git says."""

import shutil
import subprocess

import pytest

from edgeattn.api.commit import checked_out_commit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "work"
    (folder / "bundles" / "m.edge").mkdir(parents=True)
    git(folder, "init", "-q")
    return folder


def test_the_commit_of_a_branch_a_worktree_and_packed_references(repository, tmp_path):
    bundle = repository / "bundles" / "m.edge"
    assert checked_out_commit(bundle) is None
    git(repository, "commit", "-q", "--allow-empty", "-m", "one")
    first = git(repository, "rev-parse", "HEAD").strip()
    assert checked_out_commit(bundle) == (first, repository)
    git(repository, "pack-refs", "--all")
    assert checked_out_commit(bundle) == (first, repository)
    git(repository, "worktree", "add", "-q", "-b", "other", str(tmp_path / "other"))
    git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "two")
    second = git(tmp_path / "other", "rev-parse", "HEAD").strip()
    assert checked_out_commit(tmp_path / "other") == (second, tmp_path / "other")
    assert checked_out_commit(bundle) == (first, repository)
    git(repository, "checkout", "-q", "--detach", second)
    assert checked_out_commit(bundle) == (second, repository)


@pytest.mark.parametrize("head", ["", "ref: ../../secret", "nonsense", "ref: refs/heads/none"])
def test_a_malformed_repository_has_no_commit(repository, head):
    (repository / ".git" / "HEAD").write_text(head)
    assert checked_out_commit(repository) is None
    (repository / ".git" / "HEAD").write_bytes(b"\xff")
    assert checked_out_commit(repository) is None
