"""`python -m sitn_tf.train` that cuts tables into shards however small they are.

python -m tests.sitn_tf.distributed.small_shards --stage=...
"""

import functools

from sitn_tf import cli, train
from sitn_tf.distributed import parameter_servers

if __name__ == "__main__":
    parameter_servers.make_strategy = functools.partial(
        parameter_servers.make_strategy, shard_bytes=1
    )
    cli.run(train.main, train.FLAGS)
