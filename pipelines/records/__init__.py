"""Sorted events and raw items in, ids, histories, negatives and serialized records out."""
