"""A job's options in, its data set directory out: the Beam pipeline, its steps, and publishing."""
