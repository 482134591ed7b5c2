"""What a command says of an error that its library raised, and of itself."""

import gzip
import pathlib
import shlex
import shutil

import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from sitn_tf import cli, whole_files
from sitn_tf.errors import InputError


def command_flags(*with_set: str) -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_string("init", None, "", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "", flag_values=values)
    for name in with_set:
        flags.DEFINE_multi_string(name, [], "", flag_values=values)
    return values


def test_a_field_that_is_a_flag_is_shown_as_one():
    error = InputError("init=runs/a does not fit", "give init=none or overwrite=True")
    assert str(error) == "init=runs/a does not fit: give init=none or overwrite=True"
    assert (
        str(cli.in_flags(error, command_flags()))
        == "--init=runs/a does not fit: give --init=none or --overwrite"
    )


def test_what_only_looks_like_a_flag_stays():
    error = InputError("--init=x: /a/init=b.init=3 holds model.heads=3", "another workdir=y")
    assert str(cli.in_flags(error, command_flags())) == str(error)


def test_a_setting_in_the_remedy_is_shown_with_set():
    error = InputError("stage2.min_lift=9 is much", "give stage2.min_lift=0, or overwrite=False")
    assert str(cli.in_flags(error, command_flags("set"))) == (
        "stage2.min_lift=9 is much: give --set stage2.min_lift=0, or --nooverwrite"
    )


def test_a_command_is_repeated_with_the_flags_it_was_given():
    values = flags.FlagValues()
    flags.DEFINE_string("study", "a", "", flag_values=values)
    flags.DEFINE_integer("seeds", 3, "", flag_values=values)
    flags.DEFINE_multi_string("set", [], "", flag_values=values)
    given = ["x", "--study=my study", "--set=a.b=1", "--set", "c.d=2"]
    cli.parse(values, given)
    again = shlex.split(cli.command(values, "sitn_tf.x"))
    assert again[:3] == ["python", "-m", "sitn_tf.x"]
    assert sorted(again[3:]) == ["--set=a.b=1", "--set=c.d=2", "--study=my study"]


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
    assert cli.of_storage(error).startswith(told)


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
    assert cli.of_storage(error) is None


def test_tensorflows_errors_of_a_disk_are_known_by_their_type():
    error = tf.errors.ResourceExhaustedError(None, None, f"/run/ckpt_temp/part; {FULL}")
    assert cli.of_storage(error).startswith(f"/run/ckpt_temp/part: {NO_ROOM}")


def test_what_was_written_is_told_where_an_error_does_not():
    full, named = (
        f"[Errno 28] No space left on device{of} [while running 'W']" for of in ("", ": 'x'")
    )
    assert cli.of_storage(OSError(full), "scores-*").startswith(f"scores-*: {NO_ROOM}")
    assert cli.of_storage(OSError(named), "scores-*").startswith(f"x: {NO_ROOM}")


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
    assert cli.of_storage(missing) == f"/o/S-00000-of-00001.parquet: {GONE}"
    assert (
        cli.of_storage(missing, "/o/S-*") == cli.of_storage(renamed, "/o/S-*") == f"/o/S-*: {GONE}"
    )


def test_an_array_is_as_numpy_saves_it_and_a_full_disk_is_known(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "numpy.npy", array)
    whole_files.write_array(tmp_path / "ours.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    whole_files.write_rows(tmp_path / "rows.npy", (array[n : n + 1] for n in range(2)), 2)
    assert (tmp_path / "rows.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match=r"\[Errno 28\] .*: '/dev/full'"):
        whole_files.write_array(full, array)
    with pytest.raises(OSError, match=r"\[Errno 28\] .*: '/dev/full'"):
        whole_files.write_rows(full, [array], 2)


def test_a_file_that_is_open_is_named(tmp_path):
    with pytest.raises(OSError, match=r"^\[Errno 28\] full: '/a'$"), whole_files.naming("/a"):
        raise OSError(28, "full")
    with pytest.raises(gzip.BadGzipFile, match=r"^cut$"), whole_files.naming("/a"):
        raise gzip.BadGzipFile("cut")
