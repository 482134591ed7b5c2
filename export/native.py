"""A SavedModel in a process of its own, behind TensorFlow's C++ session loader.

`loader.c` is compiled once, cached by a hash of its source and of TensorFlow's version,
and started afresh for each `Session`. No Python graph code runs in it: what answers here
answers in TF Serving, which loads models the same way.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np

from sitn_tf.errors import InputError

SOURCE = pathlib.Path(__file__).with_name("loader.c")
CACHE_VARIABLE = "SITN_CACHE"
DEFAULT_SIGNATURE = "serving_default"

Arrays = dict[str, np.ndarray]
Call = tuple[str, Mapping[str, Any]]
"""A signature and its inputs."""

INVALID_ARGUMENT = 3
_CODES = {
    1: "CANCELLED",
    2: "UNKNOWN",
    INVALID_ARGUMENT: "INVALID_ARGUMENT",
    4: "DEADLINE_EXCEEDED",
    5: "NOT_FOUND",
    8: "RESOURCE_EXHAUSTED",
    9: "FAILED_PRECONDITION",
    11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED",
    13: "INTERNAL",
    14: "UNAVAILABLE",
    15: "DATA_LOSS",
}
_STRING = 7
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.float64),
    3: np.dtype(np.int32),
    4: np.dtype(np.uint8),
    6: np.dtype(np.int8),
    9: np.dtype(np.int64),
    10: np.dtype(np.bool_),
    19: np.dtype(np.float16),
}
_DTYPE_NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


class NativeError(Exception):
    """The model refused a request; `code` is the canonical status code."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        super().__init__(f"{_CODES.get(code, code)}: {message}")


class InvalidArgumentError(NativeError):
    """The request was at fault, not the model."""


class LoaderDiedError(Exception):
    """The process ended without an answer: a crash in the model's graph."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature: its tensor in the graph, dtype and shape."""

    tensor: str
    dtype: int
    shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs by the names that clients use."""

    inputs: dict[str, TensorInfo]
    outputs: dict[str, TensorInfo]


@dataclasses.dataclass(frozen=True)
class Timing:
    """What a benchmark measured.

    Attributes:
      seconds: from the first request to the last answer.
      errors: requests that the model refused.
      latency_ms: `[requests]` float64; from the arrival where requests arrive by a clock.
    """

    seconds: float
    errors: int
    latency_ms: np.ndarray

    @property
    def throughput(self) -> float:
        return len(self.latency_ms) / self.seconds

    def percentile(self, q: float) -> float:
        return float(np.percentile(self.latency_ms, q))


def build() -> pathlib.Path:
    """Compiles `loader.c`, or finds it compiled; returns the program's path.

    Raises:
      InputError: there is no gcc, or it fails.
    """
    tensorflow = _tensorflow_directory()
    version = importlib.metadata.version("tensorflow")
    key = hashlib.sha256(
        b"\0".join([SOURCE.read_bytes(), version.encode(), str(tensorflow).encode()])
    ).hexdigest()[:16]
    program = _cache_directory() / f"loader-{key}"
    if program.exists():
        return program
    compiler = os.environ.get("CC") or shutil.which("gcc")
    if not compiler or not shutil.which(compiler):
        raise InputError(
            "no C compiler for export/loader.c: install gcc (apt-get install gcc), "
            "or name one in the variable CC"
        )
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        made = pathlib.Path(scratch) / "loader"
        command = _compile_command(compiler, tensorflow, made)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(
                f"{compiler} could not compile export/loader.c ({last}): "
                f"it needs gcc and the headers of tensorflow {version}"
            )
        made.replace(program)
    return program


def _compile_command(compiler: str, tensorflow: pathlib.Path, output: pathlib.Path) -> list[str]:
    return [
        compiler,
        "-std=c11",
        "-O2",
        str(SOURCE),
        f"-I{tensorflow / 'include'}",
        f"-L{tensorflow}",
        "-l:libtensorflow_cc.so.2",
        "-l:libtensorflow_framework.so.2",
        f"-Wl,-rpath,{tensorflow}",
        "-lm",
        "-lpthread",
        "-o",
        str(output),
    ]


def _tensorflow_directory() -> pathlib.Path:
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("tensorflow is not installed: run make env")
    return pathlib.Path(next(iter(spec.submodule_search_locations)))


def _cache_directory() -> pathlib.Path:
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return pathlib.Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    cache = pathlib.Path(home) if home else pathlib.Path.home() / ".cache"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if os.access(cache, os.W_OK):
            return cache / "sitn_tf"
    except OSError:
        pass
    return pathlib.Path(tempfile.gettempdir()) / f"sitn_tf-{os.getuid()}"


class Session:
    """A loaded model that answers signatures; a context manager.

    The process outlives requests that the model refuses.

    Args:
      saved_model_dir: a version directory, with saved_model.pb in it.
      intra_op: threads of one operation; None leaves it to TensorFlow.
      inter_op: threads that share out independent operations; -1 runs a request in its
        caller's thread, None leaves it to TensorFlow.

    Raises:
      InputError: the directory holds no SavedModel, or it does not load.
    """

    def __init__(
        self,
        saved_model_dir: str | pathlib.Path,
        intra_op: int | None = None,
        inter_op: int | None = None,
    ) -> None:
        self.directory = pathlib.Path(saved_model_dir)
        if not (self.directory / "saved_model.pb").is_file():
            raise InputError(
                f"{saved_model_dir} holds no saved_model.pb: name a version directory "
                "that python -m export.export_model wrote, such as servable/1"
            )
        self._intra_op, self._inter_op = intra_op, inter_op
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._process: subprocess.Popen[bytes] | None = None
        self.signatures: dict[str, Signature] = {}
        self._start()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError, LoaderDiedError):  # it may have died before
            self._send(b"Q")
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._process = None
        self._log.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def run(
        self,
        signature: str,
        inputs: Mapping[str, Any],
        outputs: Sequence[str] | None = None,
    ) -> Arrays:
        """Answers one request.

        Args:
          inputs: an array of numbers, or of strings (str or bytes), for each input; they
            are sent as they are, so a wrong shape or dtype reaches the model.
          outputs: names of the outputs wanted; None means all.

        Raises:
          InvalidArgumentError: the model refused the request.
          NativeError: it failed in another way.
          LoaderDiedError: it crashed.
          KeyError: no such signature, or no such output.
        """
        wanted = list(outputs or self.signatures[signature].outputs)
        self._send(b"R" + self._encode_run(signature, inputs, wanted))
        self._check()
        by_tensor = dict(self._receive_tensor() for _ in range(self._receive("I")))
        tensors = self.signatures[signature].outputs
        return {name: by_tensor[tensors[name].tensor] for name in wanted}

    def benchmark(
        self,
        requests: Sequence[Call],
        total: int,
        threads: int = 1,
        warmup: int = 0,
        rate: float = 0.0,
        poisson: bool = True,
        seed: int = 0,
    ) -> Timing:
        """Times requests inside the loader's process: neither Python nor the pipe is in it.

        Args:
          requests: (signature, inputs), sent in turn until `total` are sent.
          threads: requests in flight at once.
          rate: arrivals a second; 0 sends as soon as one is answered.
          poisson: whether arrivals are random, or evenly spaced.
        """
        runs = [
            self._encode_run(name, inputs, list(self.signatures[name].outputs))
            for name, inputs in requests
        ]
        options = struct.pack("<QIQdQ", total, threads, warmup, rate if poisson else -rate, seed)
        self._send(b"B" + struct.pack("<I", len(runs)) + b"".join(runs) + options)
        self._check()
        wall_ns, errors, count = (self._receive("Q") for _ in range(3))
        latency_ns = np.frombuffer(self._receive_bytes(8 * count), "<u8")
        return Timing(wall_ns / 1e9, errors, latency_ns / 1e6)

    def _start(self) -> None:
        from tensorflow.core.protobuf import config_pb2, meta_graph_pb2

        program = build()
        self._process = subprocess.Popen(
            [str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
        )
        config = config_pb2.ConfigProto()
        config.intra_op_parallelism_threads = self._intra_op or 0
        config.inter_op_parallelism_threads = self._inter_op or 0
        directory = os.fsencode(self.directory.resolve())
        self._send(b"L" + _pack_string(directory) + _pack_string(config.SerializeToString()))
        try:
            self._check()
            meta_graph = self._receive_bytes(self._receive("I"))
        except (NativeError, LoaderDiedError) as error:
            self.close()
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{self.directory} does not load ({reason}): it is damaged or incomplete, "
                "export it again with python -m export.export_model --force"
            ) from error
        signatures = meta_graph_pb2.MetaGraphDef.FromString(meta_graph).signature_def
        # Serving has no use for the signature that only initialises the tables.
        self.signatures = {
            name: _signature(proto) for name, proto in signatures.items() if proto.outputs
        }
        self.signatures.pop("__saved_model_init_op", None)

    def _encode_run(self, signature: str, inputs: Mapping[str, Any], outputs: list[str]) -> bytes:
        known = self.signatures[signature]
        # An input that the signature does not have keeps its name: the model refuses it.
        tensors = b"".join(
            _pack_tensor(known.inputs[name].tensor if name in known.inputs else name, value)
            for name, value in inputs.items()
        )
        names = b"".join(_pack_string(known.outputs[name].tensor.encode()) for name in outputs)
        return struct.pack("<I", len(inputs)) + tensors + struct.pack("<I", len(outputs)) + names

    def _send(self, message: bytes) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(message)
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise self._died() from error

    def _check(self) -> None:
        code = self._receive("I")
        if code:
            message = self._receive_bytes(self._receive("I")).decode(errors="replace")
            raise (InvalidArgumentError if code == INVALID_ARGUMENT else NativeError)(code, message)

    def _receive_tensor(self) -> tuple[str, np.ndarray]:
        name = self._receive_bytes(self._receive("I")).decode()
        number, rank = self._receive("I"), self._receive("I")
        shape = tuple(self._receive("q") for _ in range(rank))
        count = int(np.prod(shape, dtype=np.int64))
        if number == _STRING:
            texts = [self._receive_bytes(self._receive("I")) for _ in range(count)]
            return name, np.array(texts, dtype=object).reshape(shape)
        dtype = DTYPES[number]
        values = np.frombuffer(self._receive_bytes(count * dtype.itemsize), dtype)
        return name, values.reshape(shape)

    def _receive(self, kind: str) -> int:
        return struct.unpack("<" + kind, self._receive_bytes(struct.calcsize("<" + kind)))[0]

    def _receive_bytes(self, size: int) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        received = self._process.stdout.read(size)
        if len(received) != size:
            raise self._died()
        return received

    def _died(self) -> LoaderDiedError:
        assert self._process is not None
        status = self._process.wait()
        self._log.seek(0)
        tail = self._log.read().decode(errors="replace").strip().splitlines()[-5:]
        return LoaderDiedError(
            f"the model's process ended with status {status}: {' | '.join(tail)}"
        )


def _signature(proto: Any) -> Signature:
    def infos(entries: Any) -> dict[str, TensorInfo]:
        return {
            name: TensorInfo(
                info.name,
                info.dtype,
                None
                if info.tensor_shape.unknown_rank
                else tuple(dim.size for dim in info.tensor_shape.dim),
            )
            for name, info in entries.items()
        }

    return Signature(infos(proto.inputs), infos(proto.outputs))


def as_array(value: Any) -> np.ndarray:
    """An array as it is; text in lists as objects, for NumPy's `S` drops trailing NULs."""
    array = np.asarray(value)
    return np.array(value, dtype=object) if array.dtype.kind in "SU" else array


def _pack_string(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


def _pack_tensor(name: str, value: Any) -> bytes:
    array = as_array(value)
    is_text = array.dtype.kind in "OSU"
    number = _STRING if is_text else _DTYPE_NUMBERS[array.dtype]
    head = _pack_string(name.encode()) + struct.pack(
        f"<II{array.ndim}q", number, array.ndim, *array.shape
    )
    if not is_text:
        return head + np.ascontiguousarray(array).tobytes()
    return head + b"".join(
        _pack_string(text.encode() if isinstance(text, str) else text) for text in array.flat
    )
