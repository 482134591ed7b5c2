"""Raw files in; blocks of lines, tables of events, rejects and counts of lines out."""
