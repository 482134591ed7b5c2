"""Gradients in, updated rows out: at a cost that follows the rows touched."""
