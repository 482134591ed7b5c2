"""What TF Serving reads beside the model: parsed here as the server parses it."""

import pathlib

import pytest
import tensorflow as tf
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from tensorflow_serving.config import model_server_config_pb2

from export import bill_of_materials, native, signatures, verify, warmup

FOLDER = pathlib.Path(warmup.__file__).parent / "serving"


def message_of(name, fields, nested=()):
    """A message class from (name, number, type, repeated) fields.

    BatchingParameters and MonitoringConfig are not in tensorflow-serving-api. Their numbers
    and types below were read from TF Serving's sources, July 2026: tensorflow_serving/
    servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="t", syntax="proto3")
    for inner, inner_fields in nested:
        _add(file, inner, inner_fields)
    _add(file, name, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"t.{name}"))


def _add(file, name, fields):
    message = file.message_type.add(name=name)
    for field, number, kind, repeated in fields:
        added = message.field.add(name=field, number=number)
        added.label = added.LABEL_REPEATED if repeated else added.LABEL_OPTIONAL
        if kind.startswith("."):
            added.type, added.type_name = added.TYPE_MESSAGE, f".t{kind}"
        else:
            added.type = getattr(added, f"TYPE_{kind.upper()}")


def parse(message, file):
    return text_format.Parse((FOLDER / file).read_text(), message)


def test_models_config_serves_the_two_newest_versions():
    parsed = parse(model_server_config_pb2.ModelServerConfig(), "models.config")
    (config,) = parsed.model_config_list.config
    assert config.name == warmup.MODEL_NAME
    assert config.base_path == "/models/sitn"
    assert config.model_platform == "tensorflow"
    assert config.model_version_policy.latest.num_versions == 2


def test_batching_parameters_agree_with_the_warmup():
    batching = message_of(
        "BatchingParameters",
        [
            ("max_batch_size", 1, ".Int64Value", False),
            ("batch_timeout_micros", 2, ".Int64Value", False),
            ("max_enqueued_batches", 3, ".Int64Value", False),
            ("num_batch_threads", 4, ".Int64Value", False),
            ("thread_pool_name", 5, ".StringValue", False),
            ("allowed_batch_sizes", 6, "int64", True),
            ("pad_variable_length_inputs", 7, "bool", False),
            ("enable_large_batch_splitting", 8, ".BoolValue", False),
            ("max_execution_batch_size", 9, ".Int64Value", False),
        ],
        [
            ("Int64Value", [("value", 1, "int64", False)]),
            ("StringValue", [("value", 1, "string", False)]),
            ("BoolValue", [("value", 1, "bool", False)]),
        ],
    )
    parsed = parse(batching(), "batching_parameters.txt")
    assert parsed.allowed_batch_sizes[-1] == parsed.max_batch_size.value
    assert tuple(parsed.allowed_batch_sizes) == warmup.BATCH_SIZES
    assert list(parsed.allowed_batch_sizes) == sorted(parsed.allowed_batch_sizes)
    assert parsed.pad_variable_length_inputs
    assert parsed.batch_timeout_micros.value == 0


def test_monitoring_config_enables_prometheus():
    monitoring = message_of(
        "MonitoringConfig",
        [("prometheus_config", 1, ".PrometheusConfig", False)],
        [("PrometheusConfig", [("enable", 1, "bool", False), ("path", 2, "string", False)])],
    )
    parsed = parse(monitoring(), "monitoring.config")
    assert parsed.prometheus_config.enable
    assert parsed.prometheus_config.path.startswith("/")


class Compose(yaml.SafeLoader):
    """Reads Compose's own tag, which says that a value replaces another file's."""


Compose.add_constructor("!reset", lambda loader, node: loader.construct_sequence(node))


def service(file, name="serving"):
    return yaml.load((FOLDER / file).read_text(), Loader=Compose)["services"][name]


def serving_flags(file):
    return dict(flag.removeprefix("--").partition("=")[::2] for flag in service(file)["command"])


@pytest.mark.parametrize("file", ["compose.yaml", "compose.batching.yaml"])
def test_compose_mounts_what_the_flags_name(file):
    mounts = service("compose.yaml")["volumes"]
    assert ".:/config:ro" in mounts
    assert any(mount.endswith(":/models/sitn:ro") for mount in mounts)
    given = serving_flags(file)
    files = [value for value in given.values() if value.startswith("/config/")]
    assert "/config/models.config" in files
    for path in files:
        assert (FOLDER / pathlib.Path(path).name).is_file()
    assert given["max_num_load_retries"] == "0"
    # More than the default of 4 a core: calls over it wait for a thread until their deadline.
    assert int(given["grpc_max_threads"]) >= 64
    # A pool of as many threads as cores; TF Serving takes it only beside an intra-op number.
    assert given["tensorflow_intra_op_parallelism"] == "1"
    assert given["tensorflow_inter_op_parallelism"] == "0"
    # Users encoded ahead, as many as a call may have, are the largest message.
    assert given["grpc_channel_arguments"] == "grpc.max_receive_message_length=16777216"


def test_only_the_file_for_trusted_callers_batches():
    assert "enable_batching" not in serving_flags("compose.yaml")
    batching = serving_flags("compose.batching.yaml")
    assert batching.pop("enable_batching") == "true"
    batching.pop("batching_parameters_file")
    # The flags that differ are those; the rest are written twice and stay the same.
    assert batching == serving_flags("compose.yaml")
    assert service("compose.untrusted.yaml")["ports"] == []
    assert "command" not in service("compose.untrusted.yaml")
    proxy = service("compose.untrusted.yaml", "proxy")
    assert sorted(proxy["ports"]) == sorted(service("compose.yaml")["ports"])


def test_the_server_is_of_the_tensorflow_that_exports():
    image = service("compose.yaml")["image"]
    name, pinned = bill_of_materials.SERVER_IMAGE, bill_of_materials.SERVER_TAG
    assert image == f"{name}:${{TF_SERVING_TAG:-{pinned}}}"
    assert pinned.split(".")[:2] == tf.__version__.split(".")[:2]
    assert image in (FOLDER / "compose.yaml").read_text()


def test_warmup_covers_every_signature_and_batch_size(servable, session):
    made = list(warmup.read(servable / "1"))
    recorded = list(warmup.read_filtered(servable / "1"))
    found = {
        (signature, len(next(iter(inputs.values()))))
        for signature, inputs, outputs in recorded
        if not outputs
    }
    wanted = {
        (signature, size)
        for signature in (
            signatures.SERVING_DEFAULT,
            signatures.SCORE,
            signatures.ENCODE_USER,
            signatures.SCORE_ENCODED,
        )
        for size in warmup.BATCH_SIZES
    }
    assert found == wanted
    # `ctr` alone is another graph to the server: of each signature that scores, warm too.
    assert {(signature, *outputs) for signature, _, outputs in recorded if outputs} == {
        (signature, signatures.CTR) for signature in warmup.FILTERED
    }
    assert len(made) <= warmup.MAX_RECORDS
    assert verify.replay_warmup(session, servable / "1") == len(made)


def test_warmup_is_not_compressed(servable):
    """TF Serving reads plain TFRecords only; a gzip file begins with 1f 8b."""
    assert (servable / "1" / warmup.FILE).read_bytes()[:2] != b"\x1f\x8b"


def test_a_warmup_that_fails_is_named(servable, session, tmp_path):
    inputs = {"examples": tf.constant([["two", "dimensions"]]).numpy()}
    warmup.write(tmp_path, [(signatures.SERVING_DEFAULT, inputs)])
    with pytest.raises(verify.InputError, match=r"warm-up request 0 of .* fails .*TF Serving"):
        verify.replay_warmup(session, tmp_path)
    (tmp_path / warmup.FILE).write_bytes(b"not a TFRecord file, but long enough to be read")
    with pytest.raises(verify.InputError, match=r"warm-up request 0 of .* fails"):
        verify.replay_warmup(session, tmp_path)


def test_too_many_warmup_records_are_refused(tmp_path):
    with pytest.raises(ValueError, match="1001 warm-up records: TF Serving refuses over 1000"):
        warmup.write(tmp_path, [(signatures.SCORE, {})] * 1000)


def test_the_loader_knows_no_other_signature(session):
    assert set(session.signatures) == {
        native.DEFAULT_SIGNATURE,
        signatures.SCORE,
        signatures.ENCODE_USER,
        signatures.SCORE_ENCODED,
    }
