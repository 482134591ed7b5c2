"""A data set directory and the logs it names in, findings out; nothing of the job that made it."""
