"""Which Flink a job server is made for, told by its jars."""

import pytest

from tests.pipelines.engines import programs


@pytest.fixture
def given(tmp_path, monkeypatch):
    """Names a jar, or a folder of jars, as FLINK_JOB_SERVER does."""
    monkeypatch.setattr(programs, "_of_java", lambda program: None)

    def found(place, *names):
        for name in names:
            (tmp_path / name).touch()
        monkeypatch.setenv(programs.JOB_SERVER, str(tmp_path / place))
        return programs.job_server(tmp_path)

    return found


def test_one_jar(given, tmp_path):
    name = "beam-runners-flink-1.20-job-server-2.77.0.jar"
    found = given(name, name, "another.jar")
    assert found == programs.JobServer([tmp_path / name], beam="2.77.0", flink="1.20")


def test_a_class_path(given, tmp_path):
    names = ["a.jar", "beam-runners-flink-1.19-2.70.0.jar", "beam-runners-java-2.70.0.jar"]
    found = given(".", *names, "a.txt")
    assert found == programs.JobServer([tmp_path / n for n in names], beam="2.70.0", flink="1.19")


def test_no_runner_among_them(given):
    with pytest.raises(programs.MissingProgramError, match="no jar of Beam's Flink runner"):
        given(".", "beam-runners-java-2.70.0.jar")
