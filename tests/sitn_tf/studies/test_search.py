import dataclasses
import json
import sys

import pytest

from sitn_tf import config
from sitn_tf import runs as sitn_runs
from sitn_tf.errors import InputError
from sitn_tf.studies import runs, search, workers
from sitn_tf.studies.arms import AS_IT_IS, Arm
from sitn_tf.studies.search_spaces import SEARCH_SPACES, Range, defaults, space_of

MODELS = {name: Arm((f"model.name={name}",), config.has_stage1(name)) for name in config.SECTIONS}


@pytest.mark.parametrize("model", config.SECTIONS)
def test_every_model_takes_every_value_of_its_space(model):
    chosen = config.override(config.default(), [*AS_IT_IS, f"model.name={model}"])
    space = SEARCH_SPACES[model]
    assert isinstance(space["stage2.learning_rate"], Range)
    assert "model.embedding_dim" not in space
    for field, values in space.items():
        tried = (values.low, values.high) if isinstance(values, Range) else values.values
        reached = [config.override(chosen, [f"{field}={value}"]) for value in tried]
        assert len(set(map(config.Config.to_json, reached))) == len(tried), field
    assert space_of(MODELS[model], chosen) == dict(space)


@pytest.mark.parametrize("preset", config.PRESETS)
def test_a_search_begins_with_the_defaults(preset):
    for name in config.SECTIONS:
        of_model = config.override(config.preset(preset), [f"model.name={name}"])
        point = defaults(SEARCH_SPACES[name], of_model)
        settings = [f"{field}={value}" for field, value in point.items()]
        assert config.override(of_model, settings) == of_model
    with pytest.raises(InputError, match=r"model\.dropout=0\.3 is outside what is searched"):
        defaults(SEARCH_SPACES["din"], config.override(config.default(), ["model.dropout=0.3"]))


def test_what_is_given_is_not_searched():
    arm = Arm(("contrast.temperature=0.5", "model.dropout=0.3"))
    space = space_of(arm, config.default(), ("stage2.row_decay=0.1", "stage2.batch_size=9"))
    assert list(space) == ["stage2.learning_rate", "stage2.encoder_rate"]
    from_scratch = space_of(Arm(pretrain=False), config.default())
    assert list(from_scratch) == list(SEARCH_SPACES["mean_pool"])[:4]


def peak(values):
    """Highest where the learning rate is 0.003 and dropout 0.2."""
    rate = float(values["stage2.learning_rate"])
    return 0.9 - abs(rate - 0.003) * 20 - abs(float(values["model.dropout"]) - 0.2)


def tried(trials, start=()):
    told = list(start)
    while len(told) < trials:
        values = search.suggest(SEARCH_SPACES["mean_pool"], told)
        told.append(search.Trial(values, peak(values)))
    return told


def test_equal_searches_try_the_same_and_find_better_settings():
    """After ten random trials, twenty more lie higher on average."""
    told = tried(30)
    assert tried(30, start=told[:17]) == told
    assert len({str(trial.values) for trial in told}) > 20
    assert sum(t.auc for t in told[10:]) / 20 > sum(t.auc for t in told[:10]) / 10
    failed = [dataclasses.replace(trial, auc=None, failed="x") for trial in told[:3]]
    assert search.suggest(SEARCH_SPACES["mean_pool"], failed)


def test_the_best_is_the_first_of_the_highest_and_failures_are_counted():
    made = [
        search.Trial({"a.b": "1"}, failed="the loss is not finite"),
        search.Trial({"a.b": "2"}, 0.7),
        search.Trial({"a.b": "3"}, 0.7),
        search.Trial({"a.b": "4"}, 0.6),
    ]
    assert search.best_of(made) == search.Best(4, 1, 1, 0.7, ("a.b=2",))
    assert search.best_of(made[:1]) == search.Best(1, 1)
    [table] = search.section({"x": search.best_of(made), "y": search.best_of(made[:1])}).body
    told, _ = search.section({"x": search.best_of(made), "y": search.best_of(made)}, ["y"]).body
    assert told == (
        "Each run of y keeps the best of up to three starts by validation AUC; a run of another "
        "arm is trained once. It is the same for trials."
    )
    assert table.rows == [["x", "4", "1", "1", "0.7000", "a.b=2"], ["y", "1", "1", "", "", ""]]


def test_a_killed_search_goes_on_and_its_best_settings_go_to_the_arms(small, tmp_path, monkeypatch):
    """Both arms have the same trials in the same order; a killed worker's is one of them."""
    killed = []

    def do_all(steps, do, jobs, may_begin):
        for n, step in enumerate(steps):
            if n == 5:
                raise KeyboardInterrupt
            assert not may_begin(step, [step])
            if n == 2 and not killed:
                killed.append(step)
                yield step, 9
            else:
                yield step, do(step)

    def result(run):
        rate, dropout = run.config.stage2.learning_rate, run.config.model.dropout
        values = {"stage2.learning_rate": rate, "model.dropout": dropout}
        return runs.Result(run.arm, run.seed, peak(values))

    monkeypatch.setattr(workers, "do_all", do_all)
    monkeypatch.setattr(search, "carry_out", lambda run: 1.0)
    monkeypatch.setattr(runs.Run, "result", result)
    arms = {name: MODELS[name] for name in ("mean_pool", "din")}
    study = runs.Study(str(small), tmp_path, arms)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            search.tune(study, 8)
    tuned, best = search.tune(study, 8)
    trials = {arm: search.Search(study, arm).trials() for arm in arms}
    assert [len(told) for told in trials.values()] == [8, 8]
    assert trials["mean_pool"][1].failed == "its process ended with status 9"
    assert [found.failed for found in best.values()] == [1, 0]
    highest = max(trials["din"], key=lambda trial: trial.auc)
    assert (best["din"].auc, best["din"].settings) == (highest.auc, highest.settings)
    chosen = tuned.config(tuned.arms["din"])
    assert chosen.stage2.learning_rate == highest.values["stage2.learning_rate"]
    assert (tmp_path / "search/din" / search.BEST_FILE).is_file()
    others = dataclasses.replace(study, settings=["stage2.epochs=7"])
    with pytest.raises(InputError, match=r"search/mean_pool holds a search of other settings"):
        search.tune(others, 8)


def test_seeds_of_other_settings_are_refused_before_the_search(small, tmp_path, monkeypatch):
    """The learning rate is searched, how many epochs there are is not."""
    monkeypatch.setattr(workers, "do_all", lambda *_: pytest.fail("a trial was run"))
    before = runs.Study(
        str(small), tmp_path, {"din": MODELS["din"]}, settings=["stage2.epochs=7"], seeds=2
    )
    for run in before.runs():
        run.stage2.mkdir(parents=True)
        info = sitn_runs.RunInfo("stage2", str(small), run.manifest.dataset_hash, "none", {})
        (run.stage2 / "run.json").write_text(json.dumps(dataclasses.asdict(info)))
        (run.stage2 / "config.json").write_text(run.config.to_json())
    study = dataclasses.replace(before, settings=[])
    with pytest.raises(
        InputError,
        match=r"holds other runs \(there, here\): din/0 \(stage2\.epochs"
        r": 7, 20\), din/1 \(.*: give a study of other settings another workdir",
    ):
        search.tune(study, 2)  # fmt: skip
    settled = dataclasses.replace(before, arms={"din": Arm(("model.name=din",), pretrain=False)})
    search.check_seeds(settled, [search.Search(settled, "din")])
    config_file = settled.runs()[0].stage2 / "config.json"
    other_rate = config.override(settled.runs()[0].config, ["stage2.learning_rate=0.007"])
    config_file.write_text(other_rate.to_json())
    search.check_seeds(settled, [search.Search(settled, "din")])


def test_optuna_is_asked_for_by_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    study = runs.Study("data", tmp_path, {"a": Arm()})
    with pytest.raises(
        InputError, match=r"^trials=2 needs optuna: pip install 'sitn_tf\[studies\]'"
    ):
        search.tune(study, 2)
