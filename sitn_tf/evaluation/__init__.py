"""A trained model and records in, numbers that judge it out."""
