"""The loader's process: tensors there and back, errors that name their cause, crashes seen."""

import os
import pathlib
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from export import native
from sitn_tf.errors import InputError

DTYPES = (
    np.float32,
    np.float64,
    np.float16,
    np.int8,
    np.uint8,
    np.int32,
    np.int64,
    np.bool_,
)


class Echo(tf.Module):
    """Gives every tensor back; `half` refuses zeros."""

    def save(self, folder: pathlib.Path) -> pathlib.Path:
        specs = {np.dtype(d).name: tf.TensorSpec(None, d, np.dtype(d).name) for d in DTYPES}
        specs["text"] = tf.TensorSpec(None, tf.string, "text")
        signatures = {
            name: tf.function(lambda **kw: {"same": tf.identity(next(iter(kw.values())))})
            .get_concrete_function(**{name: spec})
            for name, spec in specs.items()
        }  # fmt: skip

        def half(x):
            tf.debugging.assert_none_equal(x, 0.0, message="zero is refused")
            return {"half": x / 2, "twice": 2 * x}

        spec = tf.TensorSpec([None], tf.float32, "x")
        signatures["half"] = tf.function(half).get_concrete_function(x=spec)
        tf.saved_model.save(self, str(folder), signatures=signatures)
        return folder


@pytest.fixture(scope="module")
def echo(tmp_path_factory):
    with native.Session(Echo().save(tmp_path_factory.mktemp("echo") / "1")) as session:
        yield session


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_come_back_as_sent(echo, dtype):
    for shape in ((), (0,), (3,), (2, 0, 4), (2, 3)):
        sent = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
        found = echo.run(np.dtype(dtype).name, {np.dtype(dtype).name: sent})["same"]
        assert found.dtype == sent.dtype
        np.testing.assert_array_equal(found, sent)


def test_text_comes_back_as_sent(echo):
    sent = np.array([["", "é"], ["a\nb", "x" * 100]], dtype=object)
    found = echo.run("text", {"text": sent})["same"]
    assert found.tolist() == [[t.encode() for t in row] for row in sent.tolist()]


def test_bytes_that_are_not_utf8_or_end_in_nul_are_kept(echo):
    sent = [b"\xff\xfe", b"ends in nul\0", b"\0"]
    assert echo.run("text", {"text": sent})["same"].tolist() == sent


def test_chosen_outputs_only(echo):
    assert list(echo.run("half", {"x": np.float32([3.0])}, ["twice"])) == ["twice"]


def test_a_refused_request_names_code_and_cause_and_the_next_is_answered(echo):
    with pytest.raises(native.InvalidArgumentError, match="zero is refused") as refused:
        echo.run("half", {"x": np.float32([1.0, 0.0])})
    assert refused.value.code == native.INVALID_ARGUMENT
    assert echo.run("half", {"x": np.float32([3.0])})["half"].tolist() == [1.5]


def test_unknown_and_missing_inputs_are_refused(echo):
    with pytest.raises(native.InvalidArgumentError, match="the graph has no tensor y"):
        echo.run("half", {"y": np.float32([3.0])})
    with pytest.raises(native.InvalidArgumentError, match="half_x"):
        echo.run("half", {})
    with pytest.raises(native.InvalidArgumentError, match="float"):
        echo.run("half", {"x": np.array([1, 2])})


def test_benchmark_counts_requests_and_errors(echo):
    good, bad = ("half", {"x": np.float32([3.0])}), ("half", {"x": np.float32([0.0])})
    timing = echo.benchmark([good, bad], total=50, threads=2, warmup=4)
    assert timing.errors == 25
    assert timing.latency_ms.shape == (50,)
    assert (timing.latency_ms > 0).all()
    assert timing.throughput == pytest.approx(50 / timing.seconds)


def test_benchmark_keeps_to_the_arrival_rate(echo):
    timing = echo.benchmark([("half", {"x": np.float32([3.0])})], total=100, threads=2, rate=200.0)
    # 100 arrivals at 200 a second take 0.5 s, give or take the square root of their number.
    assert 0.3 < timing.seconds < 1.5


def test_a_crash_is_reported_and_not_waited_for(tmp_path):
    with native.Session(Echo().save(tmp_path / "1")) as session:
        os.kill(session.pid, signal.SIGKILL)
        with pytest.raises(native.LoaderDiedError, match="status -9"):
            session.run("half", {"x": np.float32([3.0])})


def test_no_compiler_is_a_usage_error(monkeypatch, tmp_path):
    monkeypatch.setenv(native.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(InputError, match="install gcc"):
        native.build()


def test_a_compiler_that_fails_is_a_usage_error(monkeypatch, tmp_path):
    monkeypatch.setenv(native.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setenv("CC", shutil.which("false"))
    with pytest.raises(InputError, match=r"could not compile export/loader.c"):
        native.build()
    assert not any(tmp_path.glob("loader*"))


def test_the_program_is_built_once(monkeypatch):
    first = native.build()
    monkeypatch.setenv("PATH", "")
    assert native.build() == first


def test_no_saved_model_is_a_usage_error(tmp_path):
    with pytest.raises(InputError, match=r"holds no saved_model.pb: name a version directory"):
        native.Session(tmp_path)


def test_a_damaged_model_is_a_usage_error(servable, tmp_path):
    broken = shutil.copytree(servable / "1", tmp_path / "1")
    (broken / "saved_model.pb").write_bytes((broken / "saved_model.pb").read_bytes()[:1000])
    with pytest.raises(InputError, match=r"/1 does not load \(.*export it again"):
        native.Session(broken)
