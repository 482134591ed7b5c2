"""Serialized records and item tables in, statistics for TFDV and a page for people out."""
