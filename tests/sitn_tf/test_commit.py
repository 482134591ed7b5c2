import shutil
import subprocess

import pytest

from sitn_tf import commit, runs
from sitn_tf.commit import UNKNOWN


@pytest.mark.skipif(shutil.which("git") is None, reason="no git here")
def test_a_checkout_has_a_commit_and_says_whether_it_is_changed(tmp_path):
    def git(*words):
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", tmp_path, *who, *words], capture_output=True,
                              text=True, check=True)  # fmt: skip
        return done.stdout.strip()

    code = tmp_path / "code"
    code.mkdir()
    (code / "__init__.py").write_text("")
    assert commit.commit.__wrapped__(code) == UNKNOWN
    git("init", "-q")
    # It lies in a work tree, which does not track it.
    assert commit.commit.__wrapped__(code) == UNKNOWN
    git("add", ".")
    git("commit", "-q", "-m", "first")
    git("tag", "v1", "-m", "v1")
    found = commit.commit.__wrapped__(code)
    assert len(found) >= 12
    assert git("rev-parse", "HEAD").startswith(found)
    (code / "__init__.py").write_text("changed = True\n")
    assert commit.commit.__wrapped__(code) == f"{found}-dirty"


def test_without_git_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(commit.shutil, "which", lambda name: None)
    assert commit.commit.__wrapped__(tmp_path) == UNKNOWN


def test_a_run_of_before_there_were_commits_is_read(tmp_path):
    (tmp_path / runs.RUN_FILE).write_text(
        '{"stage": "stage2", "data_dir": "d", "dataset_hash": "h", "init": "none", "versions": {}}'
    )
    assert runs.read_info(tmp_path).commit == UNKNOWN
