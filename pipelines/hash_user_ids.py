"""Raw user ids, a line each → the hashes that stand for them in a data set.

    echo u17 | python -m pipelines.hash_user_ids --hash_user_ids=KEYFILE

For what takes ids of a data set's users: `sitn_tf.interests --user`, requests to a model of users.
Ids come from standard input, where no history of a shell keeps them.
"""

import sys

from absl import flags

from pipelines.logs import user_hashes
from sitn_tf import cli
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "hash_user_ids", None, "the key's file, as of pipelines.build_dataset", flag_values=FLAGS
)


def main(_: list[str]) -> None:
    key = user_hashes.read_key(cli.require(FLAGS, "hash_user_ids"))
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            user = line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"line {number} of standard input is not UTF-8, as all user ids of logs are",
                "bring it to UTF-8, such as by iconv",
            ) from error
        print(user_hashes.hashed(user, key))


if __name__ == "__main__":
    cli.run(main, FLAGS)
