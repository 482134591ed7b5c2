"""A run directory in, a servable directory out."""

from sitn_tf import quiet  # which selects Keras 2 before any module here imports TensorFlow

quiet.hush_beam()
