"""A shard's records and item counts in; statistics for TFDV and a page for people out."""
