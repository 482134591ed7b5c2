"""What --help prints: it fits a screen, whatever a command has."""

from absl import flags

from sitn_tf import command_help

DOC = """Turns a into b.

On one machine:

    python -m a.b --c=d

What is below the example.
"""


def flag_values(count=2):
    values = flags.FlagValues()
    flags.DEFINE_integer("zero", 0, "Goes first.", flag_values=values)
    flags.DEFINE_boolean("always", True, "Goes on.", flag_values=values)
    flags.DEFINE_list("both", ["a", "b"], "Goes out.", flag_values=values)
    flags.DEFINE_string("nothing", None, "word " * 25, flag_values=values)
    for i in range(count):
        flags.DEFINE_string(f"more_{i}", "", "Adds.", flag_values=values)
    return values


def test_all_of_a_small_command():
    assert command_help.screen(DOC, flag_values(1)) == (
        "Turns a into b.\n\nOn one machine:\n\n    python -m a.b --c=d\n\n"
        "What is below the example.\n\n"
        "flags, with [defaults]:\n"
        "  --zero        Goes first. [0]\n"
        "  --[no]always  Goes on. [True]\n"
        "  --both        Goes out. [a,b]\n"
        f"  --nothing     {' '.join(['word'] * 17)}\n"
        f"                {' '.join(['word'] * 8)}\n"
        "  --more_0      Adds."
    )


def test_a_flag_of_several_values():
    values = flags.FlagValues()
    flags.DEFINE_multi_string("run_dir", [], "A run directory.", flag_values=values)
    assert command_help.whole(DOC, values).endswith(
        "\n  --run_dir  A run directory; may be repeated."
    )


def test_what_there_is_no_room_for_goes_in_turn():
    first = command_help.screen(DOC + 9 * "It goes on.\n", flag_values(20))
    assert "What is below" not in first
    assert "--more_19     Adds." in first
    assert first.splitlines()[-1] == "more: --helpfull"
    second = command_help.screen(DOC, flag_values(60))
    assert "python -m a.b" in second
    assert "--zero        Goes first." in second
    assert "more: --helpfull --more_" in second
    assert second.rstrip().endswith("--more_59")
    for text in (first, second):
        lines = text.splitlines()
        assert len(lines) <= command_help.LINES
        assert max(map(len, lines)) <= command_help.COLUMNS
    assert command_help.whole(DOC, flag_values(60)).count("Adds.") == 60
