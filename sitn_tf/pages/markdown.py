"""The sections of a page (`page.py`) → the same as Markdown, of pictures only the captions."""

from collections.abc import Sequence

from sitn_tf.pages.figures import Picture
from sitn_tf.pages.page import Alarm, Code, MadeBy, Section, Table


def document(
    title: str, asked: str, sections: Sequence[Section], made_by: MadeBy | None = None
) -> str:
    """What `page.page` makes HTML of, as Markdown; ends with a line end."""
    parts = [f"# {title}", asked]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.answer:
            parts.append(f"**{section.answer}**")
        parts += filter(None, map(_item, section.body))
    if made_by:
        parts.append("## How this page was made")
        if made_by.commands:
            parts.append(_code(made_by.commands))
        parts.append("\n".join(f"- {name}: {said}" for name, said in made_by.facts.items()))
    return "\n\n".join(filter(None, parts)) + "\n"


def _item(item: str | Table | Picture | Code | Alarm) -> str:
    if isinstance(item, Table):
        return f"{item.caption}\n\n{_table(item)}"
    if isinstance(item, Picture):
        return f"*On the page: {item.title}.*" if item.svg else ""
    if isinstance(item, Code):
        return _code(item.lines)
    return f"> **{item.text}**" if isinstance(item, Alarm) else item


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```sh", *lines, "```"])


def _table(table: Table) -> str:
    """Columns of numbers are aligned to the right, as on the page."""
    rules = ["---:" if kind == "number" else "---" for kind in table.kinds]
    cells = [
        [" ".join(cell.splitlines()).replace("|", r"\|") for cell in row]
        for row in (table.head, *table.rows)
    ]
    head, *rows = cells
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rules, *rows))
