"""The content of a page → its two files, HTML and Markdown."""

import pathlib

from sitn_tf import whole_files
from sitn_tf.pages import markdown, page
from sitn_tf.pages.page import Content


def write(content: Content, path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Writes `<path>.md` and `<path>.html`, and returns their paths."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files = path.with_name(f"{path.name}.md"), path.with_name(f"{path.name}.html")
    whole_files.write_text(files[0], markdown.document(*content))
    whole_files.write_text(files[1], page.page(*content))
    return files
