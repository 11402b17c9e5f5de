"""``fmbench prune`` removes stale checkpoints and no others."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from killed import killed_writer
from user_code import Said, command

from fmbench.config import specs
from fmbench.config.config import Config
from fmbench.config.hashing import canonical
from fmbench.config.reading import parse
from fmbench.data.writer import PARTIAL
from fmbench.stages.prune import half_written, size_of
from fmbench.store.checkpoint import CheckpointFolder
from fmbench.store.files import atomic


def config(iterations: int, seed: int = 0) -> Config:
    board = {
        "data": {"source": "checkerboard", "parameters": {"train": 30, "test": 10}},
        "network": {"kind": "mlp", "width": 4, "depth": 1},
        "training": {"iterations": iterations, "batch_size": 8},
    }
    return parse({"datasets": ["board"], "methods": ["fm_ot"], "seeds": [seed], "settings": {"board": board}})


def train(results: Path, iterations: int, seed: int = 0, code: str = "0") -> Said:
    spec = canonical(specs.train(config(iterations, seed), "board", "fm_ot", seed))
    folders: dict[str, Any] = {
        "--data": results / "data/board",
        "--out": results / specs.model_folder("models", "board", "fm_ot", seed),
        "--checkpoints": results / "checkpoints",
    }
    arguments = [x for pair in folders.items() for x in pair]
    said = command("train", "--spec", spec, *arguments, "--code", code, "--tracking-uri", "off", "--progress", "lines")
    assert said.code == 0, said.err
    return said


def folders(results: Path) -> set[Path]:
    return set((results / "checkpoints").iterdir())


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder with a prepared data set."""
    spec = canonical(specs.prepare(config(1), "board"))
    assert command("prepare", "--spec", spec, "--out", tmp_path / "data/board", "--progress", "none").code == 0
    return tmp_path


def test_a_training_that_starts_afresh_says_what_changed(results):
    assert "starts afresh" not in train(results, 3).err
    assert "starts afresh" not in train(results, 3).err  # it resumes
    (old,) = folders(results)
    twin = old.parent / "another-code"  # other checkpoints that it must not resume from
    shutil.copytree(old, twin)
    (old / "checkpoint.pt").unlink()  # killed between the two renames of a save, when the newest is the previous one
    said = train(results, 3).err
    assert "starts afresh" not in said and "resumed from the checkpoint at iteration" in said
    shutil.rmtree(twin)
    said = train(results, 4).err
    assert f"starts afresh: not from the checkpoints in {old}, where spec.training.iterations was 3 there and is 4 here" in said
    assert "starts afresh" not in train(results, 3, seed=1).err  # another seed's checkpoints do not count


def test_only_checkpoints_that_no_model_was_trained_from_are_removed(results):
    train(results, 3)
    (old,) = folders(results)
    train(results, 4)
    (new,) = folders(results) - {old}
    train(results, 3, seed=1)
    (killed,) = folders(results) - {old, new}
    shutil.rmtree(results / "models/board/fm_ot/1")
    unknown = results / "checkpoints/unknown"
    unknown.mkdir()
    everything = {old, new, killed, unknown}

    said = command("prune", "--results", results)
    lines = {line.split()[3]: line for line in said.out.splitlines()[:-1]}
    assert lines[old.name].startswith("remove ")
    assert "board/fm_ot/0: trained again since, spec.training.iterations was 3 there and is 4 here" in lines[old.name]
    kept = {new: "the results hold its model", killed: "its training has not finished", unknown: "it does not say which training"}
    for folder, reason in kept.items():
        assert lines[folder.name].startswith("keep ") and reason in lines[folder.name]
    assert "1 of 4 entries" in said.out and "nothing was removed" in said.out
    assert folders(results) == everything

    with CheckpointFolder(old):
        said = command("prune", "--results", results, "--yes", "--all")
    assert "a training is using it" in said.out
    assert folders(results) == {old, unknown}


def test_checkpoints_of_other_code_are_stale(results):
    train(results, 3)
    (old,) = folders(results)
    train(results, 3, code="1")
    lines = {line.split()[3]: line for line in command("prune", "--results", results).out.splitlines()[:-1]}
    assert lines.pop(old.name).startswith("remove ") and all(line.startswith("keep ") for line in lines.values()) and lines


def test_an_unfinished_preparation_is_listed_and_removed_only_with_all(tmp_path):
    """It may continue, or its data set may no longer be in the config: the results do not say."""
    partial = tmp_path / "data" / "gone" / PARTIAL
    partial.mkdir(parents=True)
    (partial / "train.npy").write_bytes(bytes(2**20))
    said = command("prune", "--results", tmp_path, "--yes")
    assert said.code == 0 and "keep         1.0 MiB  .partial  gone: its preparation has not finished" in said.out
    with FileLock(partial / "lock"):
        assert "a preparation is using it" in command("prune", "--results", tmp_path, "--yes", "--all").out
    assert (partial / "train.npy").exists()
    assert "1.0 MiB of 1.0 MiB removed" in command("prune", "--results", tmp_path, "--yes", "--all").out
    assert not partial.exists()


def test_a_stale_folder_is_removed_and_the_rest_stays(results):
    train(results, 3)
    (old,) = folders(results)
    train(results, 4)
    size = sum(p.stat().st_size for p in old.iterdir()) / 2**20
    said = command("prune", "--results", results, "--yes")
    assert f"{size:.1f} MiB of {size:.1f} MiB removed" in said.out and size > 0
    assert old not in folders(results) and len(folders(results)) == 1
    assert "0 of 1 entries" in command("prune", "--results", results).out
    assert "resumed from the checkpoint at iteration 4" in train(results, 4).err


def test_a_folder_without_checkpoints_is_refused(tmp_path):
    said = command("prune", "--results", tmp_path)
    assert said.code == 3 and "has no folder checkpoints; give the results folder" in said.err


def test_what_a_killed_writer_left_is_removed(results):
    """A user's hidden files stay, and so does the temporary folder of a process that still writes."""
    (results / "checkpoints").mkdir()
    left = killed_writer(results / "sample" / "samples.npy", bytes(2**20))
    (results / ".htaccess.disabled").write_text("a user's file")
    with atomic(results / "nfe.parquet") as temporary:
        assert half_written(results) == [left]
        said = command("prune", "--results", str(results))
        assert f"1.0 MiB  {left}  half written" in said.out and left.exists()
        assert command("prune", "--results", str(results), "--yes").code == 0
        temporary.write_bytes(b"whole")
    assert not left.exists() and (results / ".htaccess.disabled").exists() and (results / "nfe.parquet").exists()


# Only what fmbench wrote, and only within the results folder


def stale_and_newest(results: Path) -> tuple[Path, Path]:
    """The checkpoints of two trainings of the same model; the first are stale."""
    train(results, 3)
    (old,) = folders(results)
    train(results, 4)
    (new,) = folders(results) - {old}
    return old, new


def test_a_foreign_file_in_a_stale_folder_stays_with_its_folder(results):
    old, _ = stale_and_newest(results)
    (old / "notes.txt").write_text("mine")
    (old / "plots").mkdir()
    (old / "checkpoint.best.pt").write_text("mine, too")
    said = command("prune", "--results", results, "--yes")
    assert said.code == 0 and f"{old} stays" in said.out and "files that fmbench did not write" in said.out
    assert {path.name for path in old.iterdir()} - {"lock"} == {"notes.txt", "plots", "checkpoint.best.pt"}


def test_a_folder_that_fmbench_did_not_make_is_not_touched(results):
    """Not even by --all, although its names are those of checkpoints: many programs use them."""
    stale_and_newest(results)
    mine = results / "checkpoints" / "run1"
    mine.mkdir()
    (mine / "checkpoint.pt").write_bytes(b"weights of another program")
    said = command("prune", "--results", results, "--yes", "--all")
    assert "run1  it does not say which training it belongs to, so fmbench may not have made it" in said.out
    assert [path.name for path in mine.iterdir()] == ["checkpoint.pt"]


def test_a_folder_with_a_damaged_description_is_known_by_its_checkpoint(results):
    old, _ = stale_and_newest(results)
    (old / "about.json").write_text("{")
    assert "it does not say which training" in command("prune", "--results", results, "--yes").out and old.exists()
    assert command("prune", "--results", results, "--yes", "--all").code == 0
    assert not old.exists()


@pytest.mark.parametrize("link", ["checkpoints", "checkpoints/{}", "data"])
def test_nothing_behind_a_link_is_removed(results, tmp_path_factory, link):
    old, _ = stale_and_newest(results)
    (results / "data/board" / PARTIAL).mkdir()
    place = results / link.format(old.name)
    target = tmp_path_factory.mktemp("elsewhere") / place.name
    place.rename(target)
    place.symlink_to(target)
    killed_writer(target / "samples.npy")
    before = sorted(path for path in target.rglob("*") if path.name != "lock")
    said = command("prune", "--results", results, "--yes", "--all")
    assert said.code == 0 and "a link leads to it from the results folder, so fmbench does not remove it" in said.out
    assert sorted(path for path in target.rglob("*") if path.name != "lock") == before and place.is_symlink()


@pytest.mark.parametrize("about", ["[]", "{}", '{"spec": 3, "code": "0"}', '{"spec": {"dataset": "board"}}', '"text"', "\x00"])
def test_a_description_of_another_form_breaks_neither_prune_nor_training(results, about):
    old, _ = stale_and_newest(results)
    (old / "about.json").write_text(about)
    said = command("prune", "--results", results)
    assert said.code == 0 and f"{old.name}  it does not say which training it belongs to" in said.out
    train(results, 5)


def test_a_model_with_a_damaged_config_keeps_its_checkpoints(results):
    stale_and_newest(results)
    (results / "models/board/fm_ot/0/config.json").write_text("[]")
    said = command("prune", "--results", results, "--yes")
    assert said.code == 0 and said.out.count("the config.json of its model cannot be read") == 2
    assert len(folders(results)) == 2


def test_databases_that_were_set_aside_are_listed_and_stay(results):
    (results / "mlflow").mkdir()
    for name in ("mlflow.db.broken-1", "mlflow.db.broken-1-wal", "mlflow.db.outdated-2", "mlflow.db", "mlflow.db.broken-x"):
        (results / "mlflow" / name).write_bytes(bytes(2**20))
    said = command("prune", "--results", results, "--yes", "--all")
    assert said.out.count("keep         1.0 MiB  mlflow.db") == 3
    assert "mlflow.db.outdated-2  MLflow's, set aside by fmbench; delete it yourself if you do not need it" in said.out
    assert len(list((results / "mlflow").iterdir())) == 5


def test_files_that_vanish_meanwhile_count_nothing(tmp_path):
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "there").write_bytes(bytes(100))
    assert size_of(tmp_path / "there") == 100 and size_of(tmp_path / "absent") == 0
    assert size_of(tmp_path) == 100 + (tmp_path / "gone").lstat().st_size
