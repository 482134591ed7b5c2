import dataclasses
import gzip
import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from absl import flags

from pipelines import synthetic
from pipelines.synthetic_logs import writing
from pipelines.synthetic_logs.events import START_TIME, Events, make_source, make_target
from pipelines.synthetic_logs.interests import Slots, make_items, make_users
from pipelines.synthetic_logs.knobs import CHUNK_USERS, Knobs
from pipelines.synthetic_logs.lines import format_events, word
from pipelines.synthetic_logs.writing import auc_of_counts
from sitn_tf.errors import InputError

SMALL = Knobs(
    users=1200, source_items=60, target_items=50, interests=5, source_clicks=4.0, candidates=4
)
FILES = ("source", "target", "source_items", "target_items")


def read(directory: pathlib.Path, name: str) -> list[dict[str, Any]]:
    with gzip.open(directory / f"{name}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def theta(slots: Slots, interests: int) -> np.ndarray:
    users = np.arange(len(slots.interest))[:, None]
    return slots.theta(users, np.arange(interests)[None, :])


def pairwise_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Share of the unclicked lines below each clicked one, ties half, on average."""
    unclicked = np.sort(scores[labels == 0])
    places = [np.searchsorted(unclicked, scores[labels == 1], side) for side in ("left", "right")]
    return float(np.mean(np.add(*places) / 2 / len(unclicked)))


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("logs")
    return directory, writing.write(SMALL, directory)


class TestFiles:
    def test_equal_knobs_give_equal_bytes(self, logs, tmp_path):
        directory, summary = logs
        assert writing.write(SMALL, tmp_path) == summary
        names = sorted(path.name for path in directory.iterdir())
        assert names == sorted([*(f"{name}.jsonl.gz" for name in FILES), "synthetic.json"])
        for name in names:
            assert (tmp_path / name).read_bytes() == (directory / name).read_bytes()

    def test_gzip_headers_hold_no_time(self, logs):
        for name in FILES:
            assert (logs[0] / f"{name}.jsonl.gz").read_bytes()[4:8] == bytes(4)

    def test_another_seed_gives_other_logs(self, logs, tmp_path):
        writing.write(dataclasses.replace(SMALL, seed=1), tmp_path)
        for name in FILES:
            assert read(tmp_path, name) != read(logs[0], name)

    def test_plain_files_hold_the_same_lines(self, logs, tmp_path):
        writing.write(SMALL, tmp_path, compressed=False)
        for name in FILES:
            compressed = gzip.decompress((logs[0] / f"{name}.jsonl.gz").read_bytes())
            assert (tmp_path / f"{name}.jsonl").read_bytes() == compressed

    @pytest.mark.parametrize("impressions", [False, True])
    def test_more_users_leave_the_lines_of_earlier_ones(self, tmp_path, impressions):
        few = dataclasses.replace(SMALL, users=1100, source_impressions=impressions)
        many = dataclasses.replace(few, users=2100)
        writing.write(few, tmp_path / "few")
        writing.write(many, tmp_path / "many")
        for name in ("source", "target"):
            earlier = [
                line for line in read(tmp_path / "many", name) if int(line["user_id"][1:]) < 1100
            ]
            assert read(tmp_path / "few", name) == earlier

    def test_every_chunk_has_draws_of_its_own(self):
        first, second = (make_users(SMALL, chunk)["target"] for chunk in (0, 1))
        assert not np.array_equal(first.interest, second.interest)
        items = make_items(SMALL, "target")
        first, second = (make_target(SMALL, items, first, chunk) for chunk in (0, 1))
        assert not np.array_equal(first.time[:100], second.time[:100])

    def test_a_request_is_one_user_at_one_time(self, logs):
        lines = read(logs[0], "target")
        shown: dict[str, list[tuple[str, int]]] = {}
        for line in lines:
            occasion = (line["user_id"], line["timestamp"])
            shown.setdefault(line["request_id"], []).append(occasion)
        assert {len(occasions) for occasions in shown.values()} == {SMALL.candidates}
        assert {len(set(occasions)) for occasions in shown.values()} == {1}

    def test_lines_are_in_time_order_within_a_chunk_and_within_the_days(self, logs):
        for name in ("source", "target"):
            lines = read(logs[0], name)
            users = np.array([int(line["user_id"][1:]) for line in lines])
            times = np.array([line["timestamp"] for line in lines])
            for chunk in range(2):
                assert np.all(np.diff(times[users // CHUNK_USERS == chunk]) >= 0)
            assert times.min() >= START_TIME
            assert times.max() < START_TIME + 30 * 86_400
            assert times.max() - times.min() > 29 * 86_400

    def test_summary_counts_what_the_files_hold(self, logs):
        directory, summary = logs
        assert json.loads((directory / "synthetic.json").read_text()) == summary
        target = read(directory, "target")
        assert summary["lines"] == {"source": len(read(directory, "source")), "target": len(target)}
        assert summary["clicks"]["target"] == sum(line["click"] for line in target)
        assert summary["requests"] == len({line["request_id"] for line in target})
        assert summary["knobs"] == dataclasses.asdict(SMALL)
        interest = {line["item_id"]: line["interest"] for line in read(directory, "target_items")}
        clicked = [interest[line["item_id"]] for line in target if line["click"]]
        counts = np.bincount(clicked, minlength=5).tolist()
        assert summary["planted"]["target"]["clicks_of_interest"] == counts

    def test_a_run_that_fails_leaves_no_file_of_any_name(self, tmp_path, monkeypatch):
        def fail(*args: Any) -> None:
            raise RuntimeError("stop")

        writing.write(SMALL, tmp_path)
        monkeypatch.setattr(writing, "make_target", fail)
        before = (tmp_path / "target.jsonl.gz").read_bytes()
        with pytest.raises(RuntimeError, match="stop"):
            writing.write(dataclasses.replace(SMALL, seed=1), tmp_path, overwrite=True)
        assert not list(tmp_path.glob("*.tmp"))
        assert not (tmp_path / "synthetic.json").exists()
        assert (tmp_path / "target.jsonl.gz").read_bytes() == before

    def test_an_empty_source_log_is_an_empty_file(self, tmp_path):
        summary = writing.write(dataclasses.replace(SMALL, source_clicks=0.0), tmp_path)
        assert read(tmp_path, "source") == []
        assert summary["lines"]["source"] == 0


class TestFormat:
    def test_log_lines(self):
        events = Events(
            user=np.array([17, 3]),
            item=np.array([123, 0]),
            time=np.array([1_700_000_123, 1_700_000_124]),
            request=np.array([2, 0]),
            click=np.array([1, 0]),
            score=np.array([250_000, 7]),
        )
        assert format_events(events, "target").to_pybytes().decode() == (
            '{"user_id": "u17", "item_id": "t123", "timestamp": 1700000123, '
            '"request_id": "u17-2", "click": 1, "score": 0.25}\n'
            '{"user_id": "u3", "item_id": "t0", "timestamp": 1700000124, '
            '"request_id": "u3-0", "click": 0, "score": 0.000007}\n'
        )

    def test_clicks_alone_have_neither_request_nor_score(self):
        events = Events(*(np.array([value]) for value in (1, 2, 3)), None, np.array([1]), None)
        assert format_events(events, "source").to_pybytes() == (
            b'{"user_id": "u1", "item_id": "s2", "timestamp": 3, "click": 1}\n'
        )

    def test_words_are_distinct(self):
        words = {word(number) for number in range(0, 343_000, 7)}
        assert len(words) == 49_000


class TestItems:
    def test_interests_have_equally_many_items(self):
        items = make_items(SMALL, "target")
        assert np.bincount(items.interest).tolist() == [10] * 5

    def test_draw_follows_the_power_law_within_the_interest(self):
        # Interest 0 of 2 has 3 of 6 items: weights 1, 1/2, 1/3 of 11/6, so 6/11, 3/11, 2/11.
        knobs = dataclasses.replace(
            SMALL, target_items=6, interests=2, candidates=1, popularity=1.0
        )
        items = make_items(knobs, "target")
        for interest in range(2):
            drawn = items.draw(np.full(100_000, interest), np.random.default_rng(0))
            assert set(items.interest[drawn]) == {interest}
            shares = np.sort(np.bincount(drawn, minlength=6) / 100_000)[:2:-1]
            np.testing.assert_allclose(shares, [6 / 11, 3 / 11, 2 / 11], atol=0.01)

    def test_draw_stays_in_the_interest_at_the_end_of_its_range(self):
        class Highest:
            def random(self, shape: tuple[int, ...]) -> np.ndarray:
                return np.full(shape, np.nextafter(1.0, 0.0))  # plus 4 rounds to 5

        items = make_items(SMALL, "target")
        drawn = items.draw(np.arange(5), Highest())
        np.testing.assert_array_equal(items.interest[drawn], np.arange(5))

    def test_side_information_is_of_the_interest_where_the_signal_is_whole(self, tmp_path):
        writing.write(dataclasses.replace(SMALL, side_signal=1.0), tmp_path)
        for line in read(tmp_path, "source_items"):
            own = range(line["interest"] * 30, line["interest"] * 30 + 30)
            assert set(line["title"].split()) <= {word(number) for number in own}
            assert line["brand"] in {f"Brand {line['interest'] * 4 + n}" for n in range(4)}
            ((main, second),) = line["categories"]
            assert main == f"Main {line['interest'] // 4}"
            assert second.startswith(f"Second {line['interest']}-")

    def test_side_information_is_of_the_interest_as_often_as_the_signal_says(self, tmp_path):
        knobs = dataclasses.replace(SMALL, side_signal=0.4, source_items=5000)
        writing.write(knobs, tmp_path)
        own = [
            line["categories"][0][1].startswith(f"Second {line['interest']}-")
            for line in read(tmp_path, "source_items")
        ]
        # 0.4, and by chance one in five of the others.
        assert np.mean(own) == pytest.approx(0.4 + 0.6 / 5, abs=0.03)


class TestClicks:
    def test_clicks_come_as_often_as_the_scores_say(self, logs):
        directory, summary = logs
        lines = read(directory, "target")
        score = np.array([line["score"] for line in lines])
        click = np.array([line["click"] for line in lines])
        assert summary["ctr"] == pytest.approx(np.mean(click), abs=1e-6)
        assert summary["mean_score"] == pytest.approx(np.mean(score), abs=1e-6)
        for low, high in ((0.0, 0.05), (0.05, 0.1), (0.1, 0.5), (0.5, 1.0)):
            inside = (score >= low) & (score < high)
            deviation = np.sqrt(np.sum((score * (1 - score))[inside]))
            assert inside.sum() > 100
            assert abs(np.sum((click - score)[inside])) < 4 * deviation

    def test_best_auc_is_the_auc_of_the_score(self, logs):
        directory, summary = logs
        lines = read(directory, "target")
        score = np.array([line["score"] for line in lines])
        click = np.array([line["click"] for line in lines])
        assert summary["best_auc"] == pytest.approx(pairwise_auc(click, score), abs=1e-6)

    def test_auc_of_counts(self):
        # Clicked at scores 1 and 2, unclicked at 0 and 1: of four pairs three right, one tied.
        assert auc_of_counts(np.array([0, 1, 1]), np.array([1, 1, 0])) == 3.5 / 4

    def test_without_a_click_there_is_no_best_auc(self, tmp_path):
        summary = writing.write(dataclasses.replace(SMALL, bias=-2000.0), tmp_path)
        assert summary["clicks"]["target"] == 0
        assert summary["best_auc"] is None

    @pytest.mark.parametrize("candidates", [1, 4, 25])
    def test_candidates_of_a_request_are_distinct(self, candidates):
        # 25 is half of all items, and with this exponent nearly all draws repeat.
        knobs = dataclasses.replace(SMALL, candidates=candidates, popularity=6.0)
        items = make_items(knobs, "target")
        slots = make_users(knobs, 0)["target"]
        events = make_target(knobs, items, slots, 0)
        requests = events.item.reshape(-1, candidates)
        assert all(len(set(row)) == candidates for row in requests.tolist())
        assert np.all(np.diff(events.request.reshape(-1, candidates), axis=1) == 0)

    def test_score_is_the_sigmoid_of_the_users_interest(self):
        items = make_items(SMALL, "target")
        slots = make_users(SMALL, 0)["target"]
        events = make_target(SMALL, items, slots, 0)
        weights = theta(slots, SMALL.interests)
        for n in range(0, len(events), 97):
            item = events.item[n]
            interest = weights[events.user[n], items.interest[item]]
            log_odds = -3.0 + 5.5 * interest + items.quality[item]
            assert events.score[n] / 1e6 == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=1e-6)

    def test_cold_users_make_one_request(self):
        knobs = dataclasses.replace(SMALL, cold=1.0)
        users = make_users(knobs, 0)["target"]
        events = make_target(knobs, make_items(knobs, "target"), users, 0)
        assert np.bincount(events.user).tolist() == [knobs.candidates] * CHUNK_USERS

    def test_source_impressions_are_the_same_clicks_among_others(self):
        knobs = dataclasses.replace(SMALL, source_impressions=True)
        items = make_items(knobs, "source")
        slots = make_users(knobs, 0)["source"]
        alone = make_source(SMALL, items, slots, 0)
        shown = make_source(knobs, items, slots, 0)
        clicked = shown.click == 1
        for column in ("user", "item", "time"):
            np.testing.assert_array_equal(getattr(shown, column)[clicked], getattr(alone, column))
        requests = shown.item.reshape(-1, knobs.candidates)
        assert all(len(set(row)) == knobs.candidates for row in requests.tolist())
        assert set(np.argmax(shown.click.reshape(-1, knobs.candidates), axis=1)) == {0, 1, 2, 3}


class TestSharing:
    def test_agreement_of_the_domains_grows_with_the_knob(self):
        agreements = []
        for shared in (0.0, 0.25, 0.5, 0.75, 1.0):
            users = make_users(dataclasses.replace(SMALL, shared=shared), 0)
            source, target = (theta(users[domain], 5) for domain in ("source", "target"))
            np.testing.assert_allclose(source.sum(axis=1), 1.0)
            agreements.append(np.mean(np.minimum(source, target).sum(axis=1)))
        assert np.all(np.diff(agreements) > 0.05)
        assert agreements[-1] == pytest.approx(1.0)

    def test_the_knob_leaves_the_distribution_of_source_interests(self):
        peaks = [
            np.mean(np.max(theta(users["source"], 5), axis=1))
            for shared in (0.0, 0.5, 1.0)
            for users in [make_users(dataclasses.replace(SMALL, shared=shared), 0)]
        ]
        np.testing.assert_allclose(peaks, peaks[0], atol=0.03)

    def test_the_target_log_is_the_same_for_every_value(self, logs, tmp_path):
        writing.write(dataclasses.replace(SMALL, shared=0.0), tmp_path)
        name = "target.jsonl.gz"
        assert (tmp_path / name).read_bytes() == (logs[0] / name).read_bytes()
        assert read(tmp_path, "source") != read(logs[0], "source")

    def test_source_history_tells_what_target_history_does_not_where_interests_are_shared(self):
        both, target = history_aucs(shared=1.0)
        assert both - target > 0.05
        assert target > 0.6
        both, target = history_aucs(shared=0.0)
        assert both < target


def history_aucs(shared: float) -> tuple[float, float]:
    """AUC of counting strictly earlier clicks of the candidate's interest.

    Returns:
      With the clicks of both domains, and with those of the target alone.
    """
    knobs = Knobs(users=1024, shared=shared)
    users = make_users(knobs, 0)
    source_items, target_items = (make_items(knobs, d) for d in ("source", "target"))
    source = make_source(knobs, source_items, users["source"], 0)
    target = make_target(knobs, target_items, users["target"], 0)
    occasions = [
        (time, number, user, interest, click, domain)
        for domain, events, items in ((0, source, source_items), (1, target, target_items))
        for number, (time, user, interest, click) in enumerate(
            zip(
                events.time.tolist(),
                events.user.tolist(),
                items.interest[events.item].tolist(),
                events.click.tolist(),
                strict=True,
            )
        )
    ]
    counts = np.zeros((2, knobs.users, knobs.interests))
    scores = np.zeros((2, len(target)))
    at_once: list[tuple[int, int, int]] = []
    now = 0
    for time, number, user, interest, click, domain in sorted(occasions):
        if time > now:
            for place in at_once:
                counts[place] += 1
            at_once, now = [], time
        if domain:
            scores[0, number] = counts[:, user, interest].sum()
            scores[1, number] = counts[1, user, interest]
        if click:
            at_once.append((domain, user, interest))
    return pairwise_auc(target.click, scores[0]), pairwise_auc(target.click, scores[1])


class TestCommand:
    @pytest.mark.parametrize(
        ("knobs", "message"),
        [
            ({"shared": 1.5}, "shared=1.5 is not between 0 and 1"),
            ({"shared": float("nan")}, "shared=nan is not a finite number"),
            ({"users": 0}, "users=0 is not at least 1"),
            ({"seed": -1}, "seed=-1 is not between 0 and 4294967295"),
            ({"source_clicks": -2.0}, "source_clicks=-2.0 is not at least 0"),
            ({"days": 0.0}, "days=0.0 is not between"),
            (
                {"target_items": 10},
                "target_items=10 is less than interests=16: every interest needs an item",
            ),
            ({"candidates": 751}, "candidates=751 is more than half of target_items=1500"),
            (
                {"candidates": 50, "source_items": 99, "source_impressions": True},
                "candidates=50 is more than half of source_items=99",
            ),
        ],
    )
    def test_bad_knobs(self, knobs, message):
        with pytest.raises(InputError) as error:
            Knobs(**knobs)
        assert str(error.value).startswith(message)
        assert "\n" not in str(error.value)

    def test_a_directory_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(InputError, match=r"output=.*file cannot be written: File exists"):
            writing.write(SMALL, tmp_path / "file")

    def test_files_of_others_are_not_overwritten(self, tmp_path):
        (tmp_path / "source.jsonl.gz").write_text("mine")
        with pytest.raises(InputError, match=r"holds other files already: .*overwrite=True"):
            writing.write(SMALL, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["source.jsonl.gz"]
        assert (tmp_path / "source.jsonl.gz").read_text() == "mine"
        writing.write(SMALL, tmp_path, overwrite=True)

    def test_earlier_logs_don_t_stay_beside_new_ones_of_other_names(self, tmp_path):
        writing.write(SMALL, tmp_path)
        written = writing.write(SMALL, tmp_path, compressed=False, overwrite=True)
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {"synthetic.json", *written["files"].values()}

    def test_the_next_command_is_what_a_shell_takes(self, tmp_path):
        told = synthetic.next_command(tmp_path / "my logs", {"source_log": "source.jsonl"})
        assert f"--source_log={tmp_path}/my logs/source.jsonl" in shlex.split(told)

    def test_earlier_logs_are_not_overwritten(self, tmp_path):
        written = writing.write(SMALL, tmp_path)
        with pytest.raises(InputError, match=r"holds synthetic logs already: .*overwrite=True"):
            writing.write(dataclasses.replace(SMALL, seed=1), tmp_path)
        assert json.loads((tmp_path / "synthetic.json").read_text()) == written

    def test_every_knob_is_a_flag_of_the_same_default(self):
        for field in dataclasses.fields(Knobs):
            assert synthetic.FLAGS[field.name].default == field.default
            assert synthetic.FLAGS[field.name].help.startswith(field.metadata["meaning"])

    def test_flags_are_its_own(self):
        assert "shared" not in flags.FLAGS

    def test_says_what_it_wrote_and_what_to_run_next(self, tmp_path):
        done = run(f"--output={tmp_path}/logs", "--users=40", "--nogzip")
        assert done.returncode == 0
        summary = json.loads((tmp_path / "logs/synthetic.json").read_text())
        assert f"{summary['lines']['target']:,} target lines" in done.stdout
        assert f"AUC over all target lines: {summary['best_auc']:.4f}" in done.stdout
        assert "40 of 40 users" in done.stderr
        command = shlex.split(done.stdout.split("next:\n")[1])
        logs = f"{tmp_path}/logs"
        assert command == [
            *("python", "-m", "pipelines.build_dataset"),
            f"--source_log={logs}/source.jsonl",
            f"--target_log={logs}/target.jsonl",
            f"--source_items={logs}/source_items.jsonl",
            f"--target_items={logs}/target_items.jsonl",
            "--label_field=click",
            "--request_field=request_id",
            "--score_field=score",
            f"--output={logs}/data",
        ]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--shared=1.5"], "error: --shared=1.5 is not between 0 and 1\n"),
            ([], "error: --output is missing: name the directory to write the logs to\n"),
        ],
    )
    def test_errors_are_one_line(self, arguments, message):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stderr == message
        assert done.stdout == ""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.synthetic", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(synthetic.__file__).parents[1],
    )
