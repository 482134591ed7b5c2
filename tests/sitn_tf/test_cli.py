"""What a command says of an error that its library raised, and of itself."""

import shlex
import sys

import pytest
from absl import flags

from sitn_tf import cli
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
