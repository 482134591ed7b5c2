"""Raw click logs and item files in, a data set directory out (sitn_tf/schema.py)."""

from sitn_tf import quiet

quiet.hush_beam()
