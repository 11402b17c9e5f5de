"""MLflow's database: broken ones are set aside and made again, sound ones stay, and no kill leaves one that cannot be opened."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from result_sets import config, make_results
from store_killer import campaign, spread
from user_code import command

from fmbench.store import tracking_check, tracking_store
from fmbench.store.tracking import Mirror
from fmbench.store.tracking_check import passing
from fmbench.store.tracking_runs import Point, RunIdentity
from fmbench.store.tracking_store import DATABASE, MAKING, READY, is_aside, set_aside

WHOLE = float("inf")
RUNS = sorted(2 * ["ddpm/0", "fm_ot/0", "oracle_ot/0"])


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    """A store with one run, made by MLflow."""
    folder = tmp_path_factory.mktemp("pristine") / "mlflow"
    mirror = Mirror(folder, None, pytest.fail)
    run = mirror.run(mirror.experiment("fmbench/board"), RunIdentity("train/board", "fm_ot/0", {"note": "a text to damage"}))
    mirror.log(run, [Point("loss", 0.5, 1, 0)], {"width": 3})
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder


@pytest.fixture
def store(pristine, tmp_path, monkeypatch) -> Path:
    """A copy of the store. New databases are copies, too: MLflow takes seconds for each."""
    folder = tmp_path / "mlflow"
    shutil.copytree(pristine, folder, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    grow = tracking_store._grow

    def copied(making: Path, original: Path | None) -> None:
        if original is not None:
            grow(making, original)
        else:
            shutil.copyfile(pristine / DATABASE, making / READY)
            with closing(sqlite3.connect(making / READY)) as connection:
                for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
                    connection.execute(f"DELETE FROM {table}")
                connection.commit()

    monkeypatch.setattr(tracking_store, "_grow", copied)
    monkeypatch.setattr(tracking_store, "QUIET", 0.0)
    return folder


def sql(folder: Path, *statements: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if is_aside(path)}


def state(path: Path) -> Any:
    """What stands at a path: the target of a link, the content of a file, the kind of anything else."""
    if path.is_symlink():
        return os.readlink(path)
    return path.read_bytes() if path.is_file() else stat.S_IFMT(path.stat().st_mode)


def flipped(byte: int, bit: int) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = bytearray((folder / DATABASE).read_bytes())
        content[byte] ^= 1 << bit
        (folder / DATABASE).write_bytes(content)

    return damage


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / DATABASE).write_bytes(change((folder / DATABASE).read_bytes())) and None


def put(make: Callable[[Path], Any]) -> Callable[[Path], None]:
    """Something else in the place of the database."""

    def damage(folder: Path) -> None:
        (folder / DATABASE).unlink()
        make(folder / DATABASE)

    return damage


def half_made(upto: str | None) -> Callable[[Path], None]:
    """What a kill within MLflow's own first opening leaves: the revision ``upto``, and the first change of the next one."""

    def damage(folder: Path) -> None:
        import sqlalchemy
        from alembic import command as alembic
        from mlflow.store.db import utils
        from mlflow.store.tracking.dbmodels.initial_models import Base

        (folder / DATABASE).unlink()
        engine = sqlalchemy.create_engine(url := f"sqlite:///{folder / DATABASE}")
        Base.metadata.create_all(engine)
        if upto is not None:
            alembic.upgrade(utils._get_alembic_config(url), upto)
            sql(folder, "CREATE TABLE model_version_tags (key TEXT)")
        engine.dispose()

    return damage


def of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
        connection.commit()


KINDS = {
    "empty": (put(lambda path: path.touch()), "it is empty"),
    "no database": (rewritten(lambda content: b"not a database at all" * 100), "file is not a database"),
    "cut short": (rewritten(lambda content: content[: len(content) // 2]), "malformed"),
    "zeros": (rewritten(lambda content: content[:8192] + bytes(len(content) - 8192)), "malformed"),
    "magic": (flipped(3, 0), "file is not a database"),
    "read-only header": (flipped(18, 3), "its header says that it is read-only"),
    "schema format": (flipped(47, 6), "unsupported file format"),
    "free pages": (flipped(39, 2), "damaged"),
    "no text": (rewritten(lambda content: content.replace(b"a text to damage", b"a text to d\xffmage")), "not valid UTF-8"),
    "folder": (put(lambda path: path.mkdir()), "it is a folder"),
    "pipe": (put(os.mkfifo), "it is not a regular file"),
    "link to nothing": (put(lambda path: path.symlink_to("nowhere")), "a link to a file that does not exist"),
    "link to itself": (put(lambda path: path.symlink_to(path.name)), "a link that cannot be followed"),
    "other program": (put(of_another_program), "a database of another program"),
    "first tables": (half_made(None), "its tables were made only in part"),
    "half a step": (half_made("728d730b5ebd"), "table model_version_tags already exists"),
    "later MLflow": (lambda folder: sql(folder, "UPDATE alembic_version SET version_num = 'ffff'"), "Can't locate revision"),
    "no revision": (lambda folder: sql(folder, "DELETE FROM alembic_version"), "its tables were made only in part"),
    "lost table": (lambda folder: sql(folder, "DROP TABLE trace_info"), "of the table trace_info"),
    "lost column": (lambda folder: sql(folder, "ALTER TABLE inputs DROP COLUMN step"), "it lacks step of the table inputs"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_database_is_set_aside_as_it_was(store, kind):
    """One message says why; the new database works; the next opening has nothing to say."""
    damage, reason = KINDS[kind]
    damage(store)
    database = store / DATABASE
    before = state(database)
    said: list[str] = []
    mirror = Mirror(store, None, said.append, WHOLE)
    assert len(said) == 1 and reason in said[0] and "renamed it to mlflow.db.broken-1 and made a new one" in said[0]
    assert state(store / "mlflow.db.broken-1") == before
    run = mirror.run(mirror.experiment("fmbench/board"), RunIdentity("key", "name", {}))
    mirror.log(run, [Point("loss", 1.0, 1, 0)])
    again = Mirror(store, None, pytest.fail, WHOLE)
    assert again.client.get_run(run).data.metrics == {"loss": 1.0}
    assert not (store / MAKING).exists()


def test_files_that_were_set_aside_are_never_overwritten(store):
    (store / "mlflow.db.broken-1-wal").write_text("of an earlier one")
    (store / "mlflow.db.broken-3").mkdir()
    for expected in ("broken-2", "broken-4"):
        said: list[str] = []
        (store / DATABASE).write_text(expected)
        Mirror(store, None, said.append)
        assert f"renamed it to mlflow.db.{expected}" in said[0]
        assert (store / f"mlflow.db.{expected}").read_text() == expected
    assert (store / "mlflow.db.broken-1-wal").read_text() == "of an earlier one"


def test_the_log_of_a_database_that_is_gone_does_not_reach_the_new_one(store):
    (store / DATABASE).unlink()
    (store / "mlflow.db-wal").write_text("log")
    (store / "mlflow.db-shm").unlink(missing_ok=True)
    Mirror(store, None, pytest.fail, WHOLE)
    assert (store / "mlflow.db.broken-1-wal").read_text() == "log" and not (store / "mlflow.db.broken-1").exists()


def test_a_locked_database_stays(store, monkeypatch):
    monkeypatch.setattr(tracking_check, "BUSY", 0.05)
    with closing(sqlite3.connect(store / DATABASE, isolation_level=None)) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            Mirror(store, None, pytest.fail, WHOLE)
        connection.execute("ROLLBACK")
    assert names(store) == set()
    Mirror(store, None, pytest.fail, WHOLE)


def test_a_full_disk_sets_nothing_aside(store, monkeypatch):
    """Neither where the database is sound nor where it is broken and no new one can be made."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tracking_store, "_grow", full)
    (store / DATABASE).write_text("broken")
    with pytest.raises(OSError, match="No space left"):
        Mirror(store, None, pytest.fail)
    assert (store / DATABASE).read_text() == "broken" and names(store) == set() and not (store / MAKING).exists()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_IOERR_WRITE, True),
        (sqlite3.SQLITE_CORRUPT_VTAB, False),
    ],
)
def test_what_passes_is_told_from_damage_within_the_errors_of_mlflow(code, expected):
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError

    inner = sqlite3.OperationalError("text")
    inner.sqlite_errorcode = code
    outer = MlflowException(message="text")
    outer.__cause__ = OperationalError("SELECT 1", {}, inner)
    assert passing(outer) is expected


def test_another_program_that_makes_the_tables_is_waited_for(store, monkeypatch):
    """MLflow's server makes them in place. A database that was written just now may still be in the making."""
    monkeypatch.setattr(tracking_store, "QUIET", 5.0)
    whole = (store / DATABASE).read_bytes()
    half_made(None)(store)
    waited: list[float] = []

    def finish(seconds: float) -> None:
        waited.append(seconds)
        (store / DATABASE).write_bytes(whole)

    monkeypatch.setattr(tracking_store.time, "sleep", finish)
    Mirror(store, None, pytest.fail, WHOLE)
    assert waited == [0.5] and names(store) == set()


def test_a_database_of_an_older_mlflow_is_updated(store):
    """A copy is: the old file stays beside it. The runs are those of before."""
    import sqlalchemy
    from alembic import command as alembic
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    (store / DATABASE).unlink()
    engine = sqlalchemy.create_engine(url := f"sqlite:///{store / DATABASE}")
    Base.metadata.create_all(engine)
    engine.dispose()
    alembic.upgrade(utils._get_alembic_config(url), "728d730b5ebd")
    sql(
        store,
        "INSERT INTO experiments (experiment_id, name, lifecycle_stage) VALUES (7, 'fmbench/board', 'active')",
        "INSERT INTO runs (run_uuid, name, user_id, source_type, status, start_time, lifecycle_stage, experiment_id) "
        "VALUES ('abc', 'fm_ot/0', '', 'LOCAL', 'FINISHED', 5, 'active', 7)",
    )
    old = (store / DATABASE).read_bytes()
    said: list[str] = []
    mirror = Mirror(store, None, said.append, WHOLE)
    assert len(said) == 1 and "made by an older MLflow" in said[0] and "mlflow.db.outdated-1" in said[0]
    assert [r.info.run_id for r in mirror.client.search_runs(["7"])] == ["abc"]
    assert (store / "mlflow.db.outdated-1").read_bytes() == old
    Mirror(store, None, pytest.fail, WHOLE)


def test_a_database_that_was_ready_when_its_maker_died_is_used(store):
    """Killed between setting the old one aside and moving the new one into its place."""
    (store / MAKING).mkdir()
    os.rename(store / DATABASE, store / MAKING / READY)
    mirror = Mirror(store, None, pytest.fail, WHOLE)
    assert len(mirror.client.search_runs([mirror.experiment("fmbench/board")])) == 1
    assert not (store / MAKING).exists() and names(store) == set()


@pytest.mark.parametrize("leftover", ["folder", "file", "link"])
def test_what_a_killed_maker_left_is_not_used(store, tmp_path, leftover):
    (store / DATABASE).write_text("broken")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "precious").touch()
    if leftover == "folder":
        (store / MAKING).mkdir()
        (store / MAKING / "growing.db").write_text("half")
    elif leftover == "file":
        (store / MAKING).touch()
    else:
        (store / MAKING).symlink_to(tmp_path / "elsewhere")
    Mirror(store, None, lambda message: None, WHOLE)
    assert not (store / MAKING).exists() and (tmp_path / "elsewhere" / "precious").exists()


def test_a_link_to_a_sound_database_is_used(store, tmp_path):
    os.rename(store / DATABASE, tmp_path / "on another disk.db")
    (store / DATABASE).symlink_to(tmp_path / "on another disk.db")
    mirror = Mirror(store, None, pytest.fail, WHOLE)
    assert len(mirror.client.search_runs([mirror.experiment("fmbench/board")])) == 1 and (store / DATABASE).is_symlink()


def test_a_store_that_fails_its_own_check_is_an_error_and_sets_nothing_aside(store, monkeypatch):
    """A later MLflow may change what the check expects. That must not cost one store after the other."""
    monkeypatch.undo()
    (store / DATABASE).unlink()

    def wrong(*_: Any) -> str:
        raise tracking_check.BrokenDatabaseError("wrong")

    monkeypatch.setattr(tracking_store, "examine", wrong)
    with pytest.raises(RuntimeError, match="not as expected: wrong"):
        Mirror(store, None, pytest.fail)
    assert names(store) == set()


def test_set_aside_takes_everything_that_belongs_to_a_database(tmp_path):
    for ending in ("", "-wal", "-shm", "-journal"):
        (tmp_path / f"a.db{ending}").write_text(ending)
    aside = set_aside(tmp_path / "a.db", "broken")
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        f"{aside.name}{ending}": ending for ending in ("", "-wal", "-shm", "-journal")
    }


# Where artifacts lie


def test_a_copied_store_keeps_its_artifacts_in_its_own_folder(store, tmp_path):
    """An experiment that somebody gave another place keeps it."""
    one = Mirror(store, None, pytest.fail)
    (run,) = one.client.search_runs([one.experiment("fmbench/board")])
    there, here = (store / "artifacts").as_uri(), (tmp_path / "copy" / "artifacts").as_uri()
    assert run.info.artifact_uri == f"{there}/{run.info.run_id}/artifacts"
    elsewhere = one.client.create_experiment("fmbench/elsewhere", artifact_location=(tmp_path / "my files").as_uri())
    with closing(sqlite3.connect(store / DATABASE)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(store, tmp_path / "copy")
    two = Mirror(tmp_path / "copy", None, pytest.fail).client
    assert two.get_experiment(run.info.experiment_id).artifact_location == here
    assert two.get_run(run.info.run_id).info.artifact_uri == f"{here}/{run.info.run_id}/artifacts"
    assert two.get_experiment(elsewhere).artifact_location == (tmp_path / "my files").as_uri()
    (tmp_path / "note.txt").write_text("two")
    two.log_artifact(run.info.run_id, str(tmp_path / "note.txt"))
    assert len(list((tmp_path / "copy").rglob("note.txt"))) == 1 and not list(store.rglob("note.txt"))


def test_something_else_in_the_place_of_the_artifacts_is_set_aside(store):
    shutil.rmtree(store / "artifacts", ignore_errors=True)
    (store / "artifacts").write_text("a file")
    said: list[str] = []
    Mirror(store, None, said.append)
    assert len(said) == 1 and "is not a folder" in said[0] and (store / "artifacts.broken-1").read_text() == "a file"


# The trash of MLflow


def test_what_was_deleted_in_mlflow_is_restored(store):
    mirror = Mirror(store, None, pytest.fail)
    experiment = mirror.experiment("fmbench/board")
    board = RunIdentity("train/board", "fm_ot/0", {})
    first = mirror.run(experiment, board)
    mirror.client.delete_run(first)
    assert mirror.run(experiment, board) == first
    mirror.client.delete_experiment(experiment)
    assert mirror.experiment("fmbench/board") == experiment
    assert mirror.run(experiment, board) == first
    mirror.log(first, [Point("loss", 0.25, 2, 0)])
    (run,) = mirror.client.search_runs([experiment])
    assert run.data.metrics["loss"] == 0.25 and run.info.lifecycle_stage == "active"


@pytest.mark.parametrize("deleted", [False, True])
def test_a_run_with_another_value_of_a_parameter_is_replaced(store, deleted):
    """For example after a flipped bit. MLflow refuses to change a parameter, so every later log would fail."""
    said: list[str] = []
    mirror = Mirror(store, None, said.append)
    experiment = mirror.experiment("fmbench/board")
    run = mirror.run(experiment, RunIdentity("train/board", "fm_ot/0", {}, {"width": 3, "new": 1}))
    if deleted:
        mirror.client.delete_run(run)
    changed = RunIdentity("train/board", "fm_ot/0", {}, {"width": 4})
    other = mirror.run(experiment, changed)
    assert other != run and len(said) == 1 and "shows other settings than its training" in said[0]
    mirror.log(other, (), {"width": 4})
    assert mirror.run(experiment, changed) == other
    assert [r.info.run_id for r in mirror.client.search_runs([experiment])] == [other] and len(said) == 1


# The rebuild, and a short form of the campaign


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    folder = make_results(tmp_path_factory.mktemp("results") / "results", config(seeds=[0]), optional_stages=())
    (folder / "table1.csv").write_text("dataset,method\n")
    return folder


def shown(folder: Path) -> list[str]:
    mirror = Mirror(folder, None, pytest.fail, WHOLE)
    experiments = [mirror.experiment(f"fmbench/{d}") for d in ("board", "digits")]
    return sorted(r.info.run_name for r in mirror.client.search_runs(experiments) if "/" in r.info.run_name)


def test_the_rebuild_recovers_from_damage_that_no_check_knows(store, results):
    """Points whose time is a text. Every second rebuild would otherwise fail with a TypeError."""
    arguments = ["mlflow-rebuild", "--results", results, "--tracking", store]
    assert command(*arguments).code == 0 and names(store) == set()
    sql(store, "UPDATE metrics SET timestamp = 'x' WHERE key = 'loss'")
    said = command(*arguments, "--progress", "lines")
    assert said.code == 0, said.err
    assert "MLflow fails with its database" in said.err and "renamed it to mlflow.db.broken-1" in said.err
    assert shown(store) == RUNS


def test_the_rebuild_writes_what_was_deleted(store, results):
    arguments = ["mlflow-rebuild", "--results", results, "--tracking", store, "--progress", "lines"]
    assert command(*arguments).code == 0
    mirror = Mirror(store, None, pytest.fail)
    mirror.client.delete_experiment(mirror.client.get_experiment_by_name("fmbench/digits").experiment_id)
    mirror.client.delete_experiment(mirror.client.get_experiment_by_name("fmbench/summary").experiment_id)
    shutil.rmtree(store / "artifacts")
    said = command(*arguments)
    assert said.code == 0 and "6 trainings and their summary are up to date, 2 files new" in said.err
    (summary,) = mirror.client.search_runs([mirror.experiment("fmbench/summary")])
    assert {entry.path for entry in mirror.client.list_artifacts(summary.info.run_id)} >= {"tables", "benchmark.json"}
    assert shown(store)[:2] == ["ddpm/0", "ddpm/0"]
    assert "0 files new" in command(*arguments).err


def test_a_store_recovers_from_kills_and_full_disks_during_its_first_opening(results, tmp_path):
    """The short form of the campaign. No such try may leave anything that has to be set aside."""
    found = campaign(["kill", "full"], results, tmp_path, 4, seed=0)
    assert len(found) == 4 and all(f["hurt"] for f in found)
    assert [(f["code"], f["runs"], f["aside"]) for f in found] == [(0, RUNS, [])] * 4


def test_the_campaign_spreads_its_tries():
    import random

    found = spread(1, 1600, 16, random.Random(3))
    assert [(at - 1) // 100 for at in found] == list(range(16))
