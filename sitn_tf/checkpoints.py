"""Numbered checkpoints of a directory: written whole, a damaged one passed over.

    <directory>/ckpt-<number>.index  .data-...   one checkpoint
    <directory>/checkpoint                       names the current one, for TensorFlow's tools

TensorFlow writes a checkpoint under temporary names and its index last, so a number with an
index was written to the end. Which numbers there are is read from the files and not from
`checkpoint`, which may be damaged too.
"""

import logging
import pathlib
import re
import shutil
import sys

import tensorflow as tf

from sitn_tf import runs, whole_files
from sitn_tf.errors import InputError, first_line

UNREADABLE = (tf.errors.OpError, ValueError, LookupError, RuntimeError)
"""What TensorFlow raises of a checkpoint with missing, cut or altered bytes."""

_ENDED = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
"""Of a parameter server that ended: nothing is wrong with the files."""

_NO_NEWS = (
    "Detecting that an object or model or tf.train.Checkpoint is being deleted with unrestored",
    "Value in checkpoint could not be found in the restored object",
    "An attribute in the restored object could not be found in the checkpoint",
)

_MARK = re.compile(r'^model_checkpoint_path: "(ckpt-\d+)"$', re.MULTILINE)
_INDEX = re.compile(r"ckpt-(\d+)\.index")
_PART = re.compile(r"ckpt-(\d+)(\.index|\.data-.*|_temp.*|\.index\.tempstate.*)")


class Checkpoints:
    """Saves and restores trackable objects.

    Args:
      directory: of these checkpoints alone; made by the first save.
      keep: how many to keep.
      **objects: what is saved, by the name it has in the checkpoint.
    """

    def __init__(
        self, directory: pathlib.Path, keep: int, **objects: tf.__internal__.tracking.Trackable
    ) -> None:
        self.directory = directory
        self.keep = keep
        self._checkpoint = tf.train.Checkpoint(**objects)
        # Made by being read; tf.train.Checkpoint.restore wants it in every checkpoint.
        _ = self._checkpoint.save_counter
        self._damaged: set[int] = set()

    def numbers(self) -> list[int]:
        """The checkpoints that were written to the end, ascending."""
        matches = [_INDEX.fullmatch(path.name) for path in self._files()]
        return sorted(int(match[1]) for match in matches if match)

    def save(self, number: int) -> None:
        """Writes a checkpoint, then removes all but the newest before it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._checkpoint.write(str(self._prefix(number)))
        self.mark(number)
        self._damaged.discard(number)
        before = [n for n in self.numbers() if n < number and n not in self._damaged]
        self._remove_all_but({number, *before[len(before) - (self.keep - 1) :]})

    def mark(self, number: int) -> None:
        """Makes a checkpoint the one that `tf.train.latest_checkpoint` finds."""
        name = f'"ckpt-{number}"'
        whole_files.write_text(
            self.directory / "checkpoint",
            f"model_checkpoint_path: {name}\nall_model_checkpoint_paths: {name}\n",
        )

    def restore(self) -> int | None:
        """Restores the newest checkpoint that can be read and returns its number, or None.

        One that can't be read is named in a warning, and removed by a later `save`.

        Raises:
          InputError: there are checkpoints, but none can be read.
        """
        reasons = []
        for number in reversed(self.numbers()):
            path = self._prefix(number)
            try:
                status = self._checkpoint.read(str(path))
                status.assert_existing_objects_matched().expect_partial()
            except _ENDED:
                raise
            except (*UNREADABLE, AssertionError) as error:
                _hush_what_was_not_restored()
                reasons.append(f"{path} ({first_line(error)})")
                self._damaged.add(number)
                continue
            for reason in reasons:
                print(f"warning: {reason} can't be read: going back to {path}", file=sys.stderr)
            return number
        if reasons:
            raise InputError(
                f"no checkpoint of {self.directory} can be read: {'; '.join(reasons)}",
                "bring the files back, or train from the start with overwrite=True",
            )
        return None

    def remove_leftovers(self) -> None:
        """Removes what a killed process left half written."""
        self._remove_all_but(set(self.numbers()))

    def _prefix(self, number: int) -> pathlib.Path:
        return self.directory / f"ckpt-{number}"

    def _files(self) -> list[pathlib.Path]:
        return sorted(self.directory.iterdir()) if self.directory.is_dir() else []

    def _remove_all_but(self, kept: set[int]) -> None:
        # The index goes first: without it, the rest is a leftover and no damaged checkpoint.
        for path in sorted(self._files(), key=lambda path: path.suffix != ".index"):
            match = _PART.fullmatch(path.name)
            if match and int(match[1]) not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _marked(directory: pathlib.Path) -> pathlib.Path:
    """The prefix of the checkpoint that was marked.

    `tf.train.latest_checkpoint` finds it too, but logs what it misses, and does not return it.

    Raises:
      InputError: none is, or it is missing.
    """
    mark = directory / "checkpoint"
    try:
        named = _MARK.search(mark.read_text())
    except (FileNotFoundError, UnicodeDecodeError):
        named = None
    path = directory / (named[1] if named else "")
    index = path.with_name(f"{path.name}.index")
    if named is None or not index.is_file():
        raise InputError(
            f"{index}, which {mark} names, is missing" if named else f"{mark} names no checkpoint",
            "bring the files back, or train again with python -m sitn_tf.train --overwrite",
        )
    return path


def _hush_what_was_not_restored() -> None:
    """Keeps TensorFlow from telling each value of a checkpoint that was refused.

    It would, without the checkpoint's name, when what it read is freed, which is whenever the
    model is.
    """
    logging.getLogger("tensorflow").addFilter(_is_news)


def _is_news(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_NO_NEWS)


def restore_best(run_dir: pathlib.Path, model: tf.__internal__.tracking.Trackable) -> None:
    """Puts the best checkpoint's weights into a model, or parts of it, with all variables made.

    Raises:
      InputError: there is none, it is damaged, or it is of another model.
    """
    path = _marked(run_dir / runs.BEST)
    try:
        status = tf.train.Checkpoint(model=model).restore(str(path))
        status.assert_existing_objects_matched().expect_partial()
    except _ENDED:
        raise
    except (*UNREADABLE, AssertionError) as error:
        _hush_what_was_not_restored()
        raise InputError(
            f"{path} does not load ({first_line(error)[:200]}): it is damaged, or of "
            f"another model than {run_dir / runs.CONFIG_FILE} describes",
            "bring the file back, or train again with python -m sitn_tf.train --overwrite",
        ) from error
