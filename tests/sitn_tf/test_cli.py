"""What a command says of an error that its library raised, and of itself."""

import gzip
import pathlib
import shlex
import sys

import numpy as np
import pytest
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


def test_an_array_is_as_numpy_saves_it_and_a_full_disk_is_known(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "numpy.npy", array)
    whole_files.write_rows(tmp_path / "ours.npy", [array], 2)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    whole_files.write_rows(tmp_path / "rows.npy", (array[n : n + 1] for n in range(2)), 2)
    assert (tmp_path / "rows.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    by_column = np.asfortranarray(array)
    whole_files.write_rows(tmp_path / "columns.npy", [by_column], 2)
    np.testing.assert_array_equal(np.load(tmp_path / "columns.npy"), array)
    full = pathlib.Path("/dev/full")
    if not full.exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(OSError, match=r"\[Errno 28\] .*: '/dev/full'"):
        whole_files.write_rows(full, [array], 2)


def test_a_file_that_is_open_is_named(tmp_path):
    with pytest.raises(OSError, match=r"^\[Errno 28\] full: '/a'$"), whole_files.naming("/a"):
        raise OSError(28, "full")
    with pytest.raises(gzip.BadGzipFile, match=r"^cut$"), whole_files.naming("/a"):
        raise gzip.BadGzipFile("cut")


@pytest.mark.parametrize("asked", ["--help", "-h"])
def test_help_is_told_by_both_its_names(asked, monkeypatch, capsys):
    values = flags.FlagValues()
    flags.DEFINE_string("seeds", None, "How many.", flag_values=values)
    monkeypatch.setattr(sys, "argv", ["x", "--bad", asked])
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.run(lambda _: None, values, keep_unknown=True)
    assert "--seeds  How many." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "told"),
    [("--sedes=1", "'sedes'. Did you mean: seeds ?$"), ("--x=1", "flag 'x': see --help$")],
)
def test_who_mistypes_a_flag_is_told_where_to_look(given, told):
    values = flags.FlagValues()
    flags.DEFINE_string("seeds", None, "How many.", flag_values=values)
    with pytest.raises(InputError, match=told.replace("?", r"\?")):
        cli.parse(values, ["x", given])
