"""Arms of settings and a data set in, trained runs and a table of paired differences out."""
