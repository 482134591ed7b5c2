"""A data set directory and the logs it names in, findings out."""
