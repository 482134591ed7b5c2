"""Options and logs in, a data set directory out: the Beam pipeline, its steps and its workspace."""
