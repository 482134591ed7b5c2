"""A worker process of the local runner, which tells only what goes wrong.

Beam's own has some twenty lines to say of each worker that comes and goes.
"""

import logging

from apache_beam.runners.worker import sdk_worker_main


def is_news(record: logging.LogRecord) -> bool:
    """Whether a user of the job wants to know."""
    return record.levelno >= logging.WARNING and "semi_persistent_dir" not in record.getMessage()


if __name__ == "__main__":
    logging.basicConfig()
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_news)
    sdk_worker_main.main([])
