"""The shell of every page: sections of texts, tables and pictures → HTML and Markdown."""
