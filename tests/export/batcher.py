"""What TF Serving's BatchingSession does to the tensors of calls that share a batch.

After `MergeInputTensors` and `SplitOutputTensors` of tensorflow_serving/batching/
batching_session.cc, and `AddPadding` of batching_util.cc, with pad_variable_length_inputs.
"""

import numpy as np

from export import warmup
from export.requests import Inputs


class ServerDiedError(Exception):
    """The server's process is gone; the model never saw the request."""


class NeverScheduledError(Exception):
    """The call holds its thread until its deadline."""


def merge(calls: list[Inputs]) -> Inputs:
    """One call's inputs out of several's, padded to the widest and to an allowed size.

    Raises:
      ValueError: where TF Serving refuses the batch.
      ServerDiedError: where a check of TF Serving's ends the process, and every call with it:
        ranks that differ, or a call of no rows among others.
      NeverScheduledError: where a batch of no rows at all waits for ever.
    """
    rows = sum(_rows(call) for call in calls)
    if rows == 0:
        raise NeverScheduledError("a batch of no rows is never full and never due")
    if any(_rows(call) == 0 for call in calls):
        raise ServerDiedError("Check failed: a slice of a tensor of no rows")
    for name in calls[0]:
        if len({call[name].ndim for call in calls}) > 1:
            raise ServerDiedError(f"Check failed: {name} is of several ranks")
    allowed = next(size for size in warmup.BATCH_SIZES if size >= rows)
    merged = {}
    for name in calls[0]:
        widest = np.max([call[name].shape[1:] for call in calls], axis=0)
        parts = [_widened(call[name], tuple(widest)) for call in calls]
        # Rows up to an allowed size repeat the first row of the last call.
        merged[name] = np.concatenate([*parts, *[parts[-1][:1]] * (allowed - rows)])
    return merged


def split(outputs: Inputs, calls: list[Inputs]) -> list[Inputs]:
    """Each call's own rows of the outputs, as wide as the batch's."""
    ends = np.cumsum([_rows(call) for call in calls])
    parts = {name: np.split(value, ends)[:-1] for name, value in outputs.items()}
    return [{name: parts[name][i] for name in parts} for i in range(len(calls))]


def _rows(call: Inputs) -> int:
    return len(next(iter(call.values())))


def _widened(tensor: np.ndarray, widest: tuple[int, ...]) -> np.ndarray:
    """Padded with the tensor's own first element, whatever row it stands in."""
    missing = [
        (0, 0),
        *((0, wide - own) for own, wide in zip(tensor.shape[1:], widest, strict=True)),
    ]
    if not any(after for _, after in missing):
        return tensor
    if tensor.size == 0:
        raise ValueError("Got empty tensor in batch of non-empty tensors.")
    return np.pad(tensor, missing, constant_values=tensor.flat[0])
