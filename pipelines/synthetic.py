"""Writes seeded click logs of two domains whose users' interests are known.

    python -m pipelines.synthetic --output=/tmp/logs --users=3000

    <output>/
      source.jsonl.gz  target.jsonl.gz    the logs, one event a line
      source_items.jsonl.gz  target_items.jsonl.gz
      synthetic.json                      written last: knobs, counts, best possible AUC

The model. There are G interests, the same in both domains. An item i belongs to
one interest g(i) and has popularity w_i ∝ rank_i^(-popularity) within it.
A user u has M slots per domain, each an interest and a weight,

    target slot j:   (g_uj, e_uj),     g uniform on 1..G,  e ~ Gamma(2)
    source slot j:   the target's slot j with probability `shared`, else its own draw
    theta_u^d(g) = Σ_j e_uj [g_uj = g] / Σ_j e_uj

so `shared` moves the agreement of theta^s and theta^t from none (0) to identity (1)
while each alone keeps its distribution. The target log is the same, byte for byte,
for every `shared`: only the source log changes.

    source click:      interest ~ theta_u^s, or uniform with probability `source_noise`;
                       item ~ w within the interest
    target candidate:  interest ~ theta_u^t with probability `relevant`, else uniform;
                       item ~ w within the interest; C distinct ones to a request
    click ~ Bernoulli(p),   p = sigmoid(bias + strength · theta_u^t(g(i)) + b_i),
                            b_i ~ Normal(0, quality²)

Numbers of source clicks and of target requests are Poisson with a Gamma(3) activity
per user; a `cold` user makes a single target request. Times are uniform over `days`
and interests do not move, so what came earlier predicts what comes later. The log's
`score` is p, and no scorer ranks better than p but by luck: its AUC is the best possible.

Title words, brand and second category each come from the item's own interest with
probability `side_signal`, else from anywhere. The field `interest` of an item line is
the planted g(i); the pipeline does not read it.

Users are made in chunks of fixed size, each with generators seeded by (seed, stream,
chunk): memory does not grow with `users`, and a user's lines do not depend on it.
"""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from pipelines import option_fields
from pipelines.synthetic_logs import writing
from pipelines.synthetic_logs.knobs import Knobs
from sitn_tf import cli
from sitn_tf.errors import InputError

FLAGS = flags.FlagValues()
flags.DEFINE_string("output", None, "directory to write to; made if missing", flag_values=FLAGS)
flags.DEFINE_bool("overwrite", False, "write into a directory that holds files", flag_values=FLAGS)
flags.DEFINE_bool("gzip", True, "whether to compress the logs and items", flag_values=FLAGS)


option_fields.define_flags(Knobs, FLAGS)


def next_command(output: str | pathlib.Path, names: dict[str, str]) -> str:
    """The command that makes a data set of the logs."""
    output = pathlib.Path(output)
    options = [f"--{flag}={output / name}" for flag, name in names.items()]
    options += ["--label_field=click", "--request_field=request_id", "--score_field=score"]
    options += [f"--output={output / 'data'}"]
    return cli.shell("pipelines.build_dataset", *options)


def main(unknown: list[str]) -> None:
    del unknown
    given: dict[str, Any] = {f.name: FLAGS[f.name].value for f in dataclasses.fields(Knobs)}
    knobs = Knobs(**given)
    if not FLAGS.output:
        raise InputError("--output is missing: name the directory to write the logs to")
    summary = writing.write(knobs, FLAGS.output, compressed=FLAGS.gzip, overwrite=FLAGS.overwrite)
    lines, clicks = summary["lines"], summary["clicks"]
    best = "undefined" if summary["best_auc"] is None else f"{summary['best_auc']:.4f}"
    print(
        f"{FLAGS.output}: {lines['source']:,} source lines ({clicks['source']:,} clicks) and "
        f"{lines['target']:,} target lines ({clicks['target']:,} clicks) of "
        f"{knobs.users:,} users\n"
        f"best possible AUC over all target lines: {best}\n"
        f"next:\n  {next_command(FLAGS.output, summary['files'])}"
    )


if __name__ == "__main__":
    cli.run(main, FLAGS)
