"""Raw click logs and item files in, a data set directory out (sitn_tf/schema.py)."""

import logging

# Without its extra for Google Cloud Beam warns at every import that this is missing; who
# needs it gets an error, and all others one line less. Nor does anyone need to know that
# RunInference doesn't measure its memory without PyTorch.
_NO_NEWS = ("apitools not found, and bigquery", "Resource module is not available")
logging.getLogger().addFilter(lambda record: not str(record.msg).startswith(_NO_NEWS))
