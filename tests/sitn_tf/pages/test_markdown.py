from sitn_tf.pages import markdown
from sitn_tf.pages.figures import Picture
from sitn_tf.pages.page import Alarm, Code, MadeBy, Section, Table


def test_a_page_as_markdown_golden():
    table = Table("Runs.", ["run", "AUC"], [["a|b", "0.5"], ["c\nd", "0.75"]])
    body = [table, Picture("A curve", "<svg/>"), Picture("None", ""), Alarm("Look."), Code(["ls"])]
    found = markdown.document(
        "Title",
        "Asked?",
        [Section("One", "Yes.", body), Section("Two")],
        MadeBy(["make"], {"k": "v"}),
    )
    assert found == (
        "# Title\n\nAsked?\n\n## One\n\n**Yes.**\n\nRuns.\n\n"
        "| run | AUC |\n| --- | ---: |\n| a\\|b | 0.5 |\n| c d | 0.75 |\n\n"
        "*On the page: A curve.*\n\n> **Look.**\n\n```sh\nls\n```\n\n## Two\n\n"
        "## How this page was made\n\n```sh\nmake\n```\n\n- k: v\n"
    )
