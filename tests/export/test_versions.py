"""Keeping, withdrawing and restoring versions; drift between them."""

import json
import shutil
import subprocess

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

from export import golden, native, requests, verify, version_files, versions
from export.exporting import export
from export.options import ExportOptions
from sitn_tf import runs, schema, trained_models, whole_files
from sitn_tf.errors import InputError
from sitn_tf.models.registry import make_scorer
from tests.commands import run_main


@pytest.fixture
def folder(tmp_path):
    """Versions 1, 2 and 3, with no model in them, and what is none of them."""
    for name in ("1", "2", "3", "tmp", ".unfinished.20200101", "07"):
        (tmp_path / name / "assets.extra").mkdir(parents=True)
    for name in ("1", "2", "3"):
        metadata = {"created": "today", "run": {"run_dir": "r"}, "options": {"tables": "int8"}}
        (tmp_path / name / version_files.METADATA_FILE).write_text(json.dumps(metadata))
    (tmp_path / "4").write_text("a file")
    return tmp_path


def test_only_integer_directories_are_versions(folder):
    assert version_files.present(folder) == [1, 2, 3]
    assert version_files.present(folder / "absent") == []
    assert version_files.next_version(folder) == 4


@pytest.mark.parametrize("number", [0, -1, 2**63])
def test_a_number_that_tf_serving_would_pass_over_is_refused(tmp_path, number):
    with pytest.raises(InputError, match=rf"^version={number} is not an integer from 1 to 922337"):
        version_files.check_free(tmp_path, number)
    version_files.check_free(tmp_path, 2**63 - 1)


def test_a_folder_that_is_no_version_is_not_called_damaged(tmp_path):
    with pytest.raises(InputError, match=r"is no version of a servable: name one, such as SERVA"):
        version_files.read_metadata(tmp_path)


def test_a_version_is_no_servable(folder):
    with pytest.raises(InputError, match=rf"2 is a version: name its servable, {folder}$"):
        run_main(versions, f"--servable={folder}/2")


def test_rollback_withdraws_the_newest_and_restore_undoes_it(folder):
    assert version_files.rollback(folder) == (3, 2)
    assert version_files.present(folder) == [1, 2]
    # A number is never given twice: clients and logs speak of versions by number.
    assert version_files.next_version(folder) == 4
    with pytest.raises(InputError, match=r"version 3 of .* was withdrawn"):
        version_files.check_free(folder, 3)
    version_files.restore(folder, 3)
    assert version_files.present(folder) == [1, 2, 3]
    with pytest.raises(InputError, match=r"restore=3 is not among the withdrawn .*: none"):
        version_files.restore(folder, 3)


def test_a_damaged_version_is_not_taken_back(folder):
    version_files.rollback(folder)
    (folder / "withdrawn.3" / version_files.METADATA_FILE).unlink()
    with pytest.raises(InputError, match=r"withdrawn\.3, which would be served, is damaged: asse"):
        version_files.restore(folder, 3)
    assert version_files.present(folder) == [1, 2]


def test_the_last_version_is_not_pruned_because_it_is_withdrawn(tmp_path, monkeypatch, capsys):
    (tmp_path / "withdrawn.1").mkdir()
    monkeypatch.setattr(versions, "check", lambda _: {})
    monkeypatch.setattr(versions.quiet, "import_tensorflow", lambda: None)
    flag = f"--servable={tmp_path}"
    assert run_main(versions, flag, "--check") == versions.BROKEN
    assert "no version is served: export one" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"served, nothing was removed: export one .* --restore"):
        run_main(versions, flag, "--prune")
    assert version_files.withdrawn(tmp_path) == [1]


def test_a_number_below_that_of_a_pruned_version_is_not_given_again(folder):
    (folder / version_files.HIGHEST_FILE).write_text("7\n")
    with pytest.raises(InputError, match=r"version 5 of .* is below one that .*for version 8$"):
        version_files.check_free(folder, 5)
    version_files.check_free(folder, 8)


def test_there_must_be_a_version_to_go_back_to(folder):
    version_files.rollback(folder)
    version_files.rollback(folder)
    with pytest.raises(InputError, match="there is none before the newest"):
        version_files.rollback(folder)


def test_retention_keeps_the_newest(folder):
    assert version_files.retain(folder, 2) == [1]
    assert version_files.present(folder) == [2, 3]
    assert version_files.retain(folder, 5) == []


def test_nothing_is_removed_where_what_would_be_kept_is_damaged(folder):
    """Or the last version that is whole would go."""
    (folder / "3" / version_files.METADATA_FILE).unlink()
    with pytest.raises(InputError, match=r"/3, which would be kept, is damaged: .*with --prune"):
        version_files.retain(folder, 1)
    assert version_files.present(folder) == [1, 2, 3]
    assert version_files.retain(folder, 3) == []


def test_the_list_marks_what_is_served(folder):
    version_files.rollback(folder)
    lines = version_files.describe(folder).splitlines()
    assert lines == [
        "1  today  run r  tables int8",
        "2  today  run r  tables int8  <- served",
        "3  withdrawn",
    ]


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_version_hides_no_other(folder, content):
    (folder / "2" / version_files.METADATA_FILE).write_text(content)
    first, second, third = version_files.describe(folder).splitlines()
    assert first.startswith("1  today")
    assert second == "2  damaged: assets.extra/metadata.json cannot be read"
    assert third.startswith("3  today")
    with pytest.raises(InputError, match=r"2, which would be served, is damaged: .*--check"):
        version_files.rollback(folder)
    assert version_files.present(folder) == [1, 2, 3]


def test_two_exports_at_once_do_not_mix(tmp_path):
    with version_files.unfinished_version(tmp_path) as first:
        (first / "mine").touch()
        with version_files.unfinished_version(tmp_path) as second:
            (second / "theirs").touch()
            assert version_files.publish(second, tmp_path, 1) == tmp_path / "1"
        with pytest.raises(InputError, match="/1 exists"):
            version_files.publish(first, tmp_path, 1)
    assert [p.name for p in (tmp_path / "1").iterdir()] == ["theirs"]
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


def test_a_version_that_drifts_too_far_is_refused(servable, other_run_dir, tmp_path):
    folder = shutil.copytree(servable, tmp_path / "servable")
    with pytest.raises(InputError, match=r"log-odds drift by \d+\.\d+ on .* allow_drift=True"):
        export(other_run_dir, folder, ExportOptions(goldens=64))
    assert version_files.present(folder) == [1]
    options = ExportOptions(goldens=64, allow_drift=True)
    made, metadata = export(other_run_dir, folder, options, version=3)
    assert made == folder / "3"
    assert metadata["drift"]["mean"] > 0.5


def grown_run(run_dir, folder):
    """The run after a day that brought one more target item: old rows and weights as before."""
    grown = shutil.copytree(run_dir, folder / "stage2")
    path = grown / schema.item_table_path(schema.TARGET)
    table = pq.read_table(path)
    new = table.slice(table.num_rows - 1).set_column(0, schema.ITEM, pa.array(["new item"]))
    pq.write_table(pa.concat_tables([table, new]), path)
    with (grown / schema.vocabulary_path(schema.TARGET, schema.ITEM)).open("a") as vocabulary:
        vocabulary.write("new item\n")
    before = trained_models.load_scorer(run_dir)
    tables = runs.read_tables(grown, before.manifest, before.config)
    scorer = make_scorer(before.config, tables, before.manifest.max_history)
    for old, wider in zip(before.scorer.variables, scorer.variables, strict=True):
        wider.assign(tf.concat([old, wider[old.shape[0] :]], axis=0))
    shutil.rmtree(grown / runs.BEST)
    tf.train.Checkpoint(model=scorer).save(str(grown / runs.BEST / "ckpt"))
    return grown


def test_a_grown_vocabulary_answers_old_requests_as_before(servable, run_dir, tmp_path):
    folder = shutil.copytree(servable, tmp_path / "servable")
    options = ExportOptions(max_drift=1e-6, goldens=64)
    made, metadata = export(grown_run(run_dir, tmp_path), folder, options)
    assert metadata["drift"]["mean"] < 1e-6
    asked = requests.Request((), (), ("new item", "never seen"))
    with native.Session(made) as session:
        ctr = session.run("score", requests.score_inputs([asked]))["ctr"][0]
    assert ctr[0] != ctr[1]


def test_a_vocabulary_whose_lines_moved_is_refused(servable, run_dir, tmp_path):
    """The mistake that nothing else shows: every id is known, and means another item."""
    moved = shutil.copytree(run_dir, tmp_path / "stage2")
    path = moved / schema.vocabulary_path(schema.TARGET, schema.ITEM)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:] + lines[:1]))
    folder = shutil.copytree(servable, tmp_path / "servable")
    with pytest.raises(InputError, match=r"log-odds drift by \d\.\d+ on average from version 1"):
        export(moved, folder, ExportOptions(max_drift=0.05, goldens=64))


def test_a_vocabulary_that_is_not_the_manifests_is_refused(run_dir, tmp_path):
    other = shutil.copytree(run_dir, tmp_path / "stage2")
    manifest = runs.read_json(other / schema.MANIFEST_FILE, None)
    manifest["vocabularies"]["source.item"]["sha256"] = "0" * 64
    whole_files.write_json(other / schema.MANIFEST_FILE, manifest)
    with pytest.raises(InputError, match=r"source.item.txt is not the vocabulary that the run"):
        export(other, tmp_path / "servable")


def test_a_vocabulary_of_another_length_is_refused(run_dir, tmp_path):
    damaged = shutil.copytree(run_dir, tmp_path / "stage2")
    path = damaged / schema.vocabulary_path(schema.TARGET, schema.ITEM)
    path.write_text(path.read_text() + "new item\n")
    with pytest.raises(InputError, match=r"target.item.txt has 14 items, the item table 13"):
        export(damaged, tmp_path / "servable")


def test_a_damaged_newest_version_is_named(servable, run_dir, tmp_path):
    folder = tmp_path / "servable"
    shutil.copytree(servable, folder)
    (folder / "1/assets.extra/golden.jsonl").unlink()
    with pytest.raises(InputError, match=r"/1 is damaged, assets.extra/golden.jsonl .*--rollback"):
        export(run_dir, folder, ExportOptions(goldens=64))
    assert export(run_dir, folder, ExportOptions(goldens=64, allow_drift=True))[0].name == "2"


@pytest.mark.parametrize("bound", [float("nan"), -0.1])
def test_a_drift_bound_that_bounds_nothing_is_refused(bound):
    with pytest.raises(InputError, match=rf"max_drift={bound} is not a number of at least 0"):
        ExportOptions(max_drift=bound)


# ---- whole, or broken ----


def damaged(version, how):
    """A version made worse, with checksums of its own where these would tell."""
    if how == "cut":
        variables = next(version.glob("variables/variables.data*"))
        variables.write_bytes(variables.read_bytes()[:100])
    elif how == "missing":
        (version / "assets/source.item.txt").unlink()
    elif how == "added":
        (version / "assets/more.txt").write_text("more")
    elif how == "without metadata":
        (version / version_files.METADATA_FILE).unlink()
    elif how == "other scores":
        rows = golden.read(version)
        golden.write(
            version, [golden.Golden(r.request, *[(9.0,) * len(r.trained)] * 2) for r in rows]
        )
        version_files.write_checksums(version)
    elif how == "bad warm-up":
        (version / "assets.extra/tf_serving_warmup_requests").write_bytes(b"not a record" * 9)
        version_files.write_checksums(version)
    elif how == "old and cut":
        (version / version_files.CHECKSUMS_FILE).unlink()
        described = version_files.read_metadata(version) | {"format": 1}
        (version / version_files.METADATA_FILE).write_text(json.dumps(described))
        damaged(version, "cut")
    elif how == "without checksums":
        (version / version_files.CHECKSUMS_FILE).unlink()
    elif how == "checksums altered":
        (version / version_files.CHECKSUMS_FILE).write_bytes(b"\xff")


def test_checksums_that_are_cut_are_named(servable, tmp_path):
    version = shutil.copytree(servable / "1", tmp_path / "1")
    path = version / version_files.CHECKSUMS_FILE
    whole = path.read_text()
    for size in (0, 70, len(whole) // 2):
        path.write_text(whole[:size])
        assert version_files.flaw(version) == "assets.extra/checksums.sha256 is cut off"


FLAWS = {
    "cut": "variables/variables.data-00000-of-00001 is not as exported",
    "missing": "assets/source.item.txt is missing",
    "added": (
        "assets/more.txt was not exported with it: assets.extra/checksums.sha256 does not have it"
    ),
    "without checksums": "assets.extra/checksums.sha256 is missing",
    "checksums altered": "assets.extra/checksums.sha256 cannot be read",
    "without metadata": "assets.extra/metadata.json cannot be read",
    "other scores": "does not answer as at export: score, ",
    "bad warm-up": "warm-up request 0 of ",
    "old and cut": "does not load",
}


def test_a_check_finds_what_is_broken_and_prune_removes_it(other_servable, tmp_path, capsys):
    folder = shutil.copytree(other_servable, tmp_path / "servable")
    for version, how in enumerate(FLAWS, start=2):
        damaged(shutil.copytree(folder / "1", folder / str(version)), how)
    flag = f"--servable={folder}"
    assert run_main(versions, flag, "--check") == versions.BROKEN
    ok, *broken, advice = capsys.readouterr().out.splitlines()
    assert ok == "1  ok"
    for version, (flaw, line) in enumerate(zip(FLAWS.values(), broken, strict=True), start=2):
        assert line.startswith(f"{version}  BROKEN: ")
        assert flaw in line
    assert "Withdraw it with --rollback" in advice
    assert run_main(versions, flag, "--prune", "--check") == 0
    assert capsys.readouterr().out.splitlines() == ["removed 2, 3, 4, 5, 6, 7, 8, 9, 10", "1  ok"]
    # A number is never given twice, not even a broken version's.
    assert version_files.next_version(folder) == 11


def test_what_a_killed_export_left_goes_with_the_next_change(tmp_path):
    (tmp_path / ".unfinished.20200101" / "assets").mkdir(parents=True)
    with version_files.locked(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == [version_files.LOCK_FILE]


def test_a_highest_number_that_cannot_be_read_is_named(folder):
    (folder / version_files.HIGHEST_FILE).write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"\.highest is damaged.*write into it the highest"):
        version_files.next_version(folder)


def test_prune_writes_nothing_but_to_keep_the_highest_number(folder, monkeypatch):
    """So that it runs on a full disk."""
    flaws = {1: "broken", 2: None, 3: None}
    monkeypatch.setattr(versions, "check", lambda _: flaws)
    assert versions.prune(folder) == ["1"]
    assert not (folder / version_files.HIGHEST_FILE).exists()
    flaws[3] = "broken"
    del flaws[1]
    assert versions.prune(folder) == ["3"]
    assert (folder / version_files.HIGHEST_FILE).read_text() == "3\n"


def test_prune_keeps_the_last_version(other_servable, tmp_path, capsys):
    folder = shutil.copytree(other_servable, tmp_path / "servable")
    shutil.copytree(folder / "1", folder / "withdrawn.2")
    assert versions.prune(folder) == ["withdrawn.2"]
    assert {p.name for p in folder.iterdir()} == {"1", version_files.HIGHEST_FILE}
    damaged(folder / "1", "cut")
    with pytest.raises(InputError, match=r"is whole, nothing was removed \(version 1: "):
        versions.prune(folder)
    assert (folder / "1").is_dir()
    assert run_main(versions, f"--servable={folder}", "--check") == versions.BROKEN
    assert "none is whole: export one" in capsys.readouterr().out


def test_checksums_are_those_of_sha256sum(servable):
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", version_files.CHECKSUMS_FILE],
        cwd=servable / "1", check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert not done.stdout
    listed = (servable / "1" / version_files.CHECKSUMS_FILE).read_text().splitlines()
    assert len(listed) == sum(p.is_file() for p in (servable / "1").rglob("*")) - 1


def test_a_broken_version_is_the_same_as_no_export(other_servable, other_run_dir, tmp_path):
    folder = shutil.copytree(other_servable, tmp_path / "servable")
    few = ExportOptions(goldens=64)
    assert export(other_run_dir, folder, few)[0].name == "1"
    damaged(folder / "1", "cut")
    assert export(other_run_dir, folder, few)[0].name == "2"
    assert versions.check(folder) == {1: FLAWS["cut"], 2: None}


@pytest.mark.parametrize("how", ["cut", "other scores", "bad warm-up"])
def test_an_export_that_does_not_answer_from_its_files_is_no_version(
    run_dir, tmp_path, how, monkeypatch
):
    """As by a full disk, or a graph that the C++ runtime runs otherwise than Python does."""
    check = verify.check

    def spoilt_before(version):
        damaged(version, how)
        check(version)

    monkeypatch.setattr(verify, "check", spoilt_before)
    with pytest.raises(InputError, match=FLAWS[how] if how != "cut" else "does not load"):
        export(run_dir, tmp_path / "servable", ExportOptions(goldens=64))
    assert not (tmp_path / "servable").exists()


@pytest.mark.parametrize("flag", ["--rollback", "--restore=4", "--keep=1", "--prune"])
def test_nobody_changes_what_somebody_else_is_changing(folder, flag):
    with (
        version_files.locked(folder),
        pytest.raises(InputError, match=rf"{folder} is being written by process"),
    ):
        run_main(versions, f"--servable={folder}", flag)
    assert version_files.present(folder) == [1, 2, 3]


def test_nobody_exports_into_what_somebody_else_is_changing(folder, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("stage2")
    with (
        version_files.locked(folder),
        pytest.raises(InputError, match=rf"{folder} is being written by process"),
    ):
        export(run_dir, folder)
