"""What a Dataflow job sends, recorded where Google's own clients speak HTTP.

Needs apache-beam[gcp], which the environment of `make test-engines` has.
"""

import io
import json
import os
import pathlib
import re
import tarfile

import apache_beam as beam
import pytest
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines import build_dataset
from sitn_tf.errors import InputError
from tests.pipelines import two_logs as logs
from tests.pipelines.google_double import GoogleDouble

pytest.importorskip("google.cloud.dataflow_v1beta3", reason="apache-beam[gcp] is not installed")
ROOT = pathlib.Path(__file__).parents[3]
EXPECTED = pathlib.Path(__file__).with_name("dataflow_request.json")
SAID = "Workflow failed. Causes: no worker could be started"
_OPTIONS = (
    "region", "project", "setup_file", "temp_location", "pickle_library", "save_main_session",
)  # fmt: skip


@pytest.fixture(scope="module")
def sent(tmp_path_factory):
    """Google after the README's command, and the error of its job."""
    folder = tmp_path_factory.mktemp("logs")
    logs.two_logs(folder, 300)
    with GoogleDouble("JOB_STATE_FAILED", SAID) as google, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", google.url)
        patch.setenv("NO_GCE_CHECK", "true")
        patch.chdir(ROOT)  # the README's setup file is ./setup.py
        for path in folder.iterdir():
            google.objects[f"some-bucket/logs/{path.name}"] = path.read_bytes()
        with pytest.raises(InputError) as error:
            build_dataset.run([
                "--source_log=gs://some-bucket/logs/source.jsonl",
                "--target_log=gs://some-bucket/logs/target.jsonl.gz",
                "--output=gs://some-bucket/data", "--shards=5", "--runner=DataflowRunner",
                "--project=some-project", "--region=us-central1",
                "--temp_location=gs://some-bucket/temp", "--setup_file=./setup.py",
                "--no_auth", f"--dataflow_endpoint={google.url}",
            ])  # fmt: skip
    return google, error.value


def object_of(google, name):
    [found] = [content for key, content in google.objects.items() if key.endswith(f"/{name}")]
    return found


def described(google):
    """The request and the steps, without what differs from run to run and version to version."""
    [request] = google.requests
    del request["clientRequestId"]
    options = request["environment"]["sdkPipelineOptions"]["options"]
    request["environment"]["sdkPipelineOptions"] = {name: options[name] for name in _OPTIONS}
    for pool in request["environment"]["workerPools"]:
        for image in pool["sdkHarnessContainerImages"]:
            del image["capabilities"]
    text = json.dumps(request, sort_keys=True)
    for what, name in (
        (re.escape(request["name"]) + r"(\.\d+\.\d+)?", "JOB"),
        (re.escape(google.url), "ENDPOINT"),
        (re.escape(beam.__version__), "BEAM"),
        (r'"[^"]*/(?=beam_python)', '"'),  # where images are kept
    ):
        text = re.sub(what, name, text)
    pipeline = beam_runner_api_pb2.Pipeline.FromString(object_of(google, "pipeline.pb"))
    transforms = pipeline.components.transforms
    [build] = [t for t in transforms.values() if t.unique_name == "Build"]
    steps = [transforms[name].unique_name for name in build.subtransforms]
    return {"request": json.loads(text), "steps": steps}


def test_the_request(sent):
    google, _ = sent
    found = described(google)
    if "SITN_WRITE_EXPECTED" in os.environ:
        EXPECTED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(EXPECTED.read_text())
    assert google.unknown == []


def test_the_project_travels_whole(sent):
    google, _ = sent
    with tarfile.open(fileobj=io.BytesIO(object_of(google, "workflow.tar.gz"))) as archive:
        packed = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {
        str(path.relative_to(ROOT))
        for package in ("pipelines", "sitn_tf")
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".html")
    }
    assert needed <= packed
    assert not any(name.startswith("tests/") for name in packed)
    assert str(ROOT).encode() not in object_of(google, "pipeline.pb")


def test_a_failed_job_is_one_line_and_leaves_the_logs_alone(sent):
    google, error = sent
    assert SAID in str(error)
    assert "\n" not in str(error)
    assert {key.split("/")[1] for key in google.objects} == {"logs", "temp"}
