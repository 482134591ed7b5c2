"""Knobs in, logs of two domains out whose users' interests are known (pipelines/synthetic.py)."""
