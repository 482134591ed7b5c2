"""Raw user ids, a line each → the hashes that stand for them in a data set.

    echo u17 | python -m pipelines.hash_user_ids --hash_user_ids=KEYFILE

For what takes ids of a data set's users: `sitn_tf.interests --user`, requests to a model of users.
Ids come from standard input, where no history of a shell keeps them.
"""

import sys

from absl import flags

from pipelines.logs import user_hashes
from sitn_tf import cli

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "hash_user_ids", None, "the key's file, as of pipelines.build_dataset", flag_values=FLAGS
)


def main(_: list[str]) -> None:
    key = user_hashes.read_key(cli.require(FLAGS, "hash_user_ids"))
    for line in sys.stdin:
        print(user_hashes.hashed(line.rstrip("\r\n"), key))


if __name__ == "__main__":
    cli.run(main, FLAGS)
