"""Raw files in, blocks of lines, tables of events and counts of lines out."""
