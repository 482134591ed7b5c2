"""What both stages train from: a configuration and a data set → a model and its optimizer."""

import pathlib
from collections.abc import Iterable, Sequence

import tensorflow as tf

from sitn_tf import data, label_share, runs, schema, shards, whole_files
from sitn_tf.config import Config, sections_of
from sitn_tf.errors import InputError
from sitn_tf.models.registry import make_pretrainer, make_scorer
from sitn_tf.optimizers.ftrl import beside_ftrl
from sitn_tf.optimizers.row_sparse import make_optimizer
from sitn_tf.sections import TrainingConfig


class Stage:
    """A stage of a configuration on a data set, with the model's variables made.

    Args:
      name: schema.STAGE1 or schema.STAGE2.
      config: of the run.
      data_dir: data set directory.
      strategy: within whose scope variables are made; one device if None.
      skip_corrupt: how many records may be lost in damaged shards.

    Attributes:
      settings: the stage's section of the configuration.
      manifest: of the data set.
      tables: item tables by domain.
      records, steps: of an epoch; None where the data set does not say.
      model: the pre-trainer of stage 1, the scorer of stage 2.
      optimizer: without slots yet.
      learns_source: whether a step has source requests beside it.
      skipped: records done without, by shard.

    Raises:
      InputError: no (whole) data set, more of it damaged than may be, a model without a stage 1,
        a schedule without an end, a model of both domains and no source requests, or one of clicks'
        ages or of the hour and no times.
    """

    def __init__(
        self,
        name: str,
        config: Config,
        data_dir: pathlib.Path,
        strategy: tf.distribute.Strategy | None = None,
        skip_corrupt: int = 0,
    ) -> None:
        self.name, self.config, self.data_dir = name, config, data_dir
        self.settings: TrainingConfig = getattr(config, name)
        self.manifest = schema.read_manifest(data_dir)
        if config.encoder.ages and not self.manifest.click_times:
            raise InputError(
                f"encoder.ages=true needs the times of clicks, which {data_dir} does not have",
                "build it again, with python -m pipelines.build_dataset --click_times, or give "
                "encoder.ages=false",
            )
        asked = [name for name in config.model.request_features if name in schema.OF_TIMES]
        if asked and not self.manifest.has_times:
            raise InputError(
                f"model.request_features={asked[0]} needs times; those of {data_dir} only put "
                f"clicks in order (time_unit={schema.ORDER})",
                f"leave out {', '.join(asked)}",
            )
        self.tables = runs.read_tables(data_dir, self.manifest, config)
        self.lossy, self.skipped = bool(skip_corrupt), {}
        if skip_corrupt:
            self.skipped = shards.skipped(data_dir, self.manifest, self._read(), skip_corrupt)
        self.records = self._records(name)
        if name == schema.STAGE2 and config.stage2.label_share < 1:
            self.records = self._labels()
        self.steps = self._steps(self.records)
        make_model = make_pretrainer if name == schema.STAGE1 else make_scorer
        self.strategy = strategy or tf.distribute.get_strategy()
        with self.strategy.scope():
            self.model = make_model(config, self.tables, self.manifest.max_history)
            self.optimizer = make_optimizer(self.settings, self.steps)
            if name == schema.STAGE2:
                self.optimizer = beside_ftrl(self.optimizer, self.model.ftrl_variables, config.wide)
        self.learns_source = name == schema.STAGE2 and self.model.learns_source
        if self.learns_source:
            self.source_steps()

    def batches(self, epoch: int, skip: int) -> tf.data.Dataset:
        """An epoch's pass over the training data, in its order, without the first `skip`."""
        size, seed = self.settings.batch_size, self.config.seed
        share = self.config.stage2.label_share if self.name == schema.STAGE2 else 1.0
        read = data.read_epoch(self.data_dir, self.name, size, seed, epoch, skip, self.lossy, share)
        if not self.learns_source:
            return read
        assert self.steps is not None
        size, steps = self.source_steps()
        ahead = range((epoch - 1) * self.steps + skip, epoch * self.steps)
        asked = data.read_onwards(
            self.data_dir, schema.SOURCE_REQUESTS, size, seed, ahead, steps, self.lossy
        )
        return tf.data.Dataset.zip(read, asked).map(data.with_source_requests)

    def source_steps(self) -> tuple[int, int]:
        """Source requests a step, and steps in a pass over them.

        Without `joint.batch_size` so many that an epoch of stage 2 sees each about once.

        Raises:
          InputError: the data set has none, or fewer than a step's.
        """
        records = self._records(schema.SOURCE_REQUESTS) or 0
        name = self.config.model.name
        if not records or not self.steps:
            raise InputError(
                f"model.name={name} learns from requests of both domains; {self.data_dir} has none "
                "of the source",
                "build it again, with python -m pipelines.build_dataset --source_requests",
            )
        # Of all labels: with a share of them a step stays as large, and its losses as they are.
        steps = self._steps(self._records(self.name)) or self.steps
        size = self.config.joint.batch_size or max(1, records // steps)
        if size > records:
            raise InputError(
                f"joint.batch_size={size} is above the data set's {records} source requests"
            )
        return size, -(-records // size)

    def validation(self, batch_size: int) -> tf.data.Dataset:
        """The records that the stage is judged by."""
        return data.read_split(
            self.data_dir, self.name, schema.VALIDATION, batch_size, lossy=self.lossy
        )

    def check_read(self, records: int) -> None:
        """Raises InputError where a pass over the training data gave fewer or more than it has.

        A shard that is cut off between two records has none that is damaged.
        """
        if self.records is not None and records != self.records:
            what = f"an epoch of {self.name} gave {records:,} of {self.records:,} records"
            raise shards.refuse(self.data_dir, self._read(), what)

    def _read(self) -> tuple[str, ...]:
        """The stages whose records a run of this one reads."""
        asked = self.name == schema.STAGE2 and "joint" in sections_of(self.config.model.name)
        return (self.name, schema.SOURCE_REQUESTS) if asked else (self.name,)

    def _records(self, stage: str) -> int | None:
        records = self.manifest.records.get(stage, {}).get(schema.TRAIN)
        lost = shards.of_split(self.skipped, stage, schema.TRAIN)
        return None if records is None else records - lost

    def _steps(self, records: int | None) -> int | None:
        """Of a pass over so many records."""
        return None if records is None else -(-records // self.settings.batch_size)

    def _labels(self) -> int:
        """How many of stage 2's training requests `stage2.label_share` keeps.

        Raises:
          InputError: none, or there are fewer or more of them than there should be.
        """
        share = self.config.stage2.label_share
        files = shards.find(self.data_dir, schema.STAGE2, schema.TRAIN, self.lossy)
        kept, whole = label_share.count(files, share, self.lossy)
        self.check_read(whole)
        if not kept:
            raise InputError(
                f"stage2.label_share={share} keeps none of {whole:,} training requests",
                "give a larger one",
            )
        return kept

    def prepare(self, run_dir: pathlib.Path, init: str, overwrite: bool) -> None:
        """`runs.prepare` of this stage's run.

        Args:
          init: see runs.RunInfo.
        """
        info = runs.info_of(self.name, self.data_dir, self.manifest, init)
        runs.prepare(run_dir, self.config, self.manifest, info, overwrite)
        if self.skipped:
            lost = sum(self.skipped.values())
            whole_files.write_json(
                run_dir / runs.SKIPPED_FILE, {"records": lost, "shards": self.skipped}
            )
            print(
                f"warning: {lost:,} records of damaged shards are done without: "
                f"see {run_dir / runs.SKIPPED_FILE}",
                flush=True,
            )


def without(variables: Iterable[tf.Variable], some: Sequence[tf.Variable]) -> list[tf.Variable]:
    """The variables that are not among `some`, in their order."""
    left_out = {id(variable) for variable in some}
    return [variable for variable in variables if id(variable) not in left_out]
