"""What disks, TensorFlow and Beam say of a file system, in one line."""

import shutil

import pytest
import tensorflow as tf

from sitn_tf import storage_errors

FULL = "No space left on device"
NO_ROOM = f"{FULL}: free some room or write to another disk, then give the "


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, FULL, "/run/a"), f"/run/a: {NO_ROOM}"),
        (OSError(28, FULL, "/from", None, "/to"), f"/to: {NO_ROOM}"),
        (
            shutil.Error(
                [("/from", "/to", "[Errno 28] No space left on device: '/from' -> '/to'")]
            ),
            f"/to: {NO_ROOM}",
        ),
        (
            RuntimeError("/run/ckpt-1_temp/part; No space left on device"),
            "/run/ckpt-1_temp/part: N",
        ),
        (
            RuntimeError("OSError: [Errno 30] Read-only file system: '/out/x' [while running 'S']"),
            "/out/x: Read-only file system: give a directory that you may write to",
        ),
        (FileNotFoundError(2, "No such file or directory", "/gone"), "/gone: No such file or dire"),
        (OSError(5, "Input/output error", "/bad"), "/bad: Input/output error"),
    ],
)
def test_what_a_disk_says_names_the_file_and_the_remedy(error, told):
    assert storage_errors.in_one_line(error).startswith(told)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("disk"),
        ValueError(f"/a; {FULL}"),
        RuntimeError(f"a test of '{FULL}'"),
        AssertionError("[Errno 28] in a log"),
    ],
)
def test_other_errors_are_none_of_a_disk(error):
    assert storage_errors.in_one_line(error) is None


def test_tensorflows_errors_of_a_disk_are_known_by_their_type():
    error = tf.errors.ResourceExhaustedError(None, None, f"/run/ckpt_temp/part; {FULL}")
    assert storage_errors.in_one_line(error).startswith(f"/run/ckpt_temp/part: {NO_ROOM}")


def test_what_was_written_is_told_where_an_error_does_not():
    full, named = (
        f"[Errno 28] No space left on device{of} [while running 'W']" for of in ("", ": 'x'")
    )
    assert storage_errors.in_one_line(OSError(full), "scores-*").startswith(f"scores-*: {NO_ROOM}")
    assert storage_errors.in_one_line(OSError(named), "scores-*").startswith(f"x: {NO_ROOM}")


GONE = "No such file or directory: if it was removed meanwhile, give the command again"


def test_what_beam_says_of_files_it_renames_is_known():
    missing = OSError(
        "src and dst files do not exist. src: /o/beam-temp-S-1/a.S.parquet, dst: /o/S-00000-of-"
        "00001.parquet with exceptions None [while running 'W'] with exceptions None"
    )
    renamed = Exception(
        "Encountered exceptions in finalize_write: [OSError(FileNotFoundError(2, 'No such file or "
        "directory'))] [while running 'W']"
    )
    assert storage_errors.in_one_line(missing) == f"/o/S-00000-of-00001.parquet: {GONE}"
    assert (
        storage_errors.in_one_line(missing, "/o/S-*")
        == storage_errors.in_one_line(renamed, "/o/S-*")
        == f"/o/S-*: {GONE}"
    )
