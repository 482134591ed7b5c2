"""A data set directory and a configuration in, a run directory out: the loop and both stages."""
