"""The MLflow summary run, the rebuild of an MLflow store, and the store served and read over its REST interface."""

import contextlib
import sqlite3
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow_server import API, request, served
from result_sets import QUIET, config, make_results, number_for
from user_code import command

from fmbench.config.hashing import canonical
from fmbench.config.written_out import written_out
from fmbench.stages.mlflow_summary import LISTED, artifacts, attach, run
from fmbench.store.archive import export
from fmbench.store.benchmark import FILE, read_benchmark
from fmbench.store.files import read_json, sha256, write_json
from fmbench.store.parquet import write_table
from fmbench.store.tracking import OFF, Mirror
from fmbench.store.tracking_runs import SUMMARY, experiment_name

DEAD = "http://127.0.0.1:9"
TRAININGS = 2 * 3
NAMES = {"ddpm/0", "fm_ot/0", "oracle_ot/0", "ddpm", "fm_ot", "oracle_ot"}
"""The runs of a data set: the trainings, and the parent of each method's."""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """One seed of three methods on two data sets, with tables and a figure as files."""
    folder = make_results(tmp_path_factory.mktemp("mlflow") / "results", config(seeds=[0]), optional_stages=())
    (folder / "table1.csv").write_text("dataset,method\n")
    (folder / "table1.md").write_text("# Table 1\n")
    (folder / "claims.csv").write_text("claim,verdict\n")
    (folder / "report.html").write_text("everything again")
    (folder / "figures").mkdir()
    (folder / "figures" / "fig07.png").write_bytes(b"a picture")
    (folder / "figures" / "fig07.parquet").write_bytes(b"its data")
    return folder


@pytest.fixture(scope="module")
def store(results, tmp_path_factory) -> Path:
    """The folder of a store that was rebuilt from an archive of the results, which has no models."""
    folder = tmp_path_factory.mktemp("store") / "mlflow"
    export(results, folder.parent / "set.zip")
    said = command("mlflow-rebuild", "--results", folder.parent / "set.zip", "--tracking", folder, "--progress", "lines")
    assert said.code == 0, said.err
    assert f"{TRAININGS} trainings and their summary are up to date, 4 files new" in said.err  # an archive has no figures
    return folder


def counts(folder: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return {
            t: connection.execute(f"select count(*) from {t}").fetchone()[0] for t in ("experiments", "runs", "metrics", "params")
        }


def summaries(store: Mirror) -> list[Any]:
    return list(store.client.search_runs([store.experiment(SUMMARY)]))


def attached(store: Mirror, run_id: str, folder: str | None = None) -> set[str]:
    found = set()
    for entry in store.client.list_artifacts(run_id, folder):
        found |= attached(store, run_id, entry.path) if entry.is_dir else {entry.path}
    return found


def test_the_rebuilt_store_has_settings_curve_and_results_of_every_training(results, store):
    mirror = Mirror(store, None)
    for dataset in ("board", "digits"):
        found = {r.info.run_name: r for r in mirror.client.search_runs([mirror.experiment(experiment_name(dataset))])}
        assert set(found) == NAMES
        one, at = found["fm_ot/0"], number_for(dataset, "fm_ot", 0)
        curve = sorted((m.step, m.value) for m in mirror.client.get_metric_history(one.info.run_id, "loss"))
        assert curve == [(10, at / 10), (20, at / 20)]
        assert one.data.metrics["likelihood/nll"] == 2 * at and one.data.metrics["sweep/mse/euler"] == at / 8
        assert one.data.params["training.iterations"] == ("100" if dataset == "board" else "200")
        assert one.data.tags["fmbench.key"].startswith(f"train/{dataset}/fm_ot/0/")
        assert "loss" not in found["oracle_ot/0"].data.metrics


def test_the_summary_is_one_run_that_sends_only_changed_files(results, tmp_path, store, monkeypatch):
    mirror = Mirror(store, None)
    key = f"summary/{read_benchmark(results)['hash']}"
    (one,) = summaries(mirror)
    assert one.data.tags["fmbench.key"] == key and one.info.status == "FINISHED"
    methods = ", ".join(m["name"] for m in read_benchmark(results)["config"]["methods"])
    assert one.data.tags["fmbench.methods"] == methods and one.data.tags["fmbench.datasets"] == "board, digits"
    assert one.data.params["datasets"] == "['board', 'digits']" and one.data.params["seeds"] == "[0]"
    assert one.data.metrics["digits/fm_ot/frechet"] == 3 * number_for("digits", "fm_ot", 0)
    assert attached(mirror, one.info.run_id) == {FILE, LISTED, "tables/table1.csv", "tables/table1.md", "tables/claims.csv"}

    assert attach(results, mirror) == 1  # the figure, which the archive did not have
    everything = {FILE, LISTED, "tables/table1.csv", "tables/table1.md", "tables/claims.csv", "figures/fig07.png"}
    assert attached(mirror, one.info.run_id) == everything
    before = counts(store)
    sent: list[str] = []
    original = mirror.client.log_artifact

    def spy(run_id: str, path: str, folder: str | None = None) -> None:
        sent.append(Path(path).name)
        original(run_id, path, folder)

    monkeypatch.setattr(mirror.client, "log_artifact", spy)
    assert attach(results, mirror) == 0 and sent == []
    assert len(summaries(mirror)) == 1 and counts(store) == before
    (results / "table1.csv").write_text("dataset,method\nboard,ddpm\n")
    assert attach(results, mirror) == 1 and sent == ["table1.csv", LISTED]
    local = mirror.client.download_artifacts(one.info.run_id, "tables/table1.csv", str(tmp_path))
    assert Path(local).read_text() == "dataset,method\nboard,ddpm\n"
    listed = read_json(Path(mirror.client.download_artifacts(one.info.run_id, LISTED, str(tmp_path))))
    assert listed == {name: sha256(path) for name, path in artifacts(results).items()} and len(listed) == 5


def test_another_config_has_another_summary_run(results, store, tmp_path):
    other = make_results(tmp_path / "results", config(seeds=[0], board__training={"iterations": 300}), optional_stages=())
    mirror = Mirror(store, None)
    attach(other, mirror)
    keys = {r.data.tags["fmbench.key"] for r in summaries(mirror)}
    assert keys == {f"summary/{read_benchmark(folder)['hash']}" for folder in (results, other)} and len(keys) == 2


@pytest.mark.parametrize("uri", [DEAD, OFF])
def test_no_failure_of_mlflow_fails_the_job(results, tmp_path, monkeypatch, capsys, uri):
    """The list of the summary's files is written in any case, with the same bytes."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    arguments = [
        "--results",
        results,
        "--tracking",
        tmp_path / "mlflow",
        "--tracking-uri",
        uri,
        "--out",
        tmp_path / "summary.json",
    ]
    said = command("mlflow-summary", *arguments, "--progress", "lines")
    assert said.code == 0
    assert ("warning: MLflow is not available (" in said.err) == (uri == DEAD)
    listed = read_json(tmp_path / "summary.json")
    assert listed["key"] == f"summary/{read_benchmark(results)['hash']}"
    assert listed["artifacts"]["tables/claims.csv"] == sha256(results / "claims.csv")
    assert "tables/report.html" not in listed["artifacts"] and "figures/fig07.parquet" not in listed["artifacts"]
    first = (tmp_path / "summary.json").read_bytes()
    run(results, tmp_path / "mlflow", OFF, tmp_path / "summary.json", QUIET)
    assert (tmp_path / "summary.json").read_bytes() == first
    assert (tmp_path / "mlflow").exists() == (uri == DEAD)


def test_a_failed_rebuild_is_an_error(results, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    arguments = ["mlflow-rebuild", "--results", results, "--tracking", tmp_path / "m"]
    said = command(*arguments, "--tracking-uri", DEAD)
    assert said.code == 3 and f"MLflow could not be rebuilt at {DEAD}: " in said.err
    said = command(*arguments, "--tracking-uri", "off")
    assert said.code == 3 and "MLflow is off" in said.err
    said = command("mlflow-rebuild", "--results", tmp_path / "set.zip")
    assert said.code == 2 and "name a folder for it with --tracking" in said.err


def test_a_model_that_models_parquet_lacks_is_named(results, store, tmp_path):
    for name in ("records.parquet", "loss_curves.parquet", FILE):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    write_table(tmp_path / "models.parquet", pq.read_table(results / "models.parquet").slice(1))
    said = command("mlflow-rebuild", "--results", tmp_path, "--tracking", store)
    assert said.code == 3 and "models.parquet does not have board/ddpm/0, which has records" in said.err


# The store served, as `make mlflow` does


def test_the_server_shows_experiments_runs_and_artifacts_over_rest(results, store, tmp_path):
    attach(results, Mirror(store, None))
    with served(f"sqlite:///{store / 'mlflow.db'}", tmp_path / "server.log") as address:
        api = f"{address}/{API}"
        experiments = request(f"{api}/experiments/search", {"max_results": 100})["experiments"]
        ids = {e["name"]: e["experiment_id"] for e in experiments}
        assert {"fmbench/board", "fmbench/digits", SUMMARY} <= set(ids)

        found = request(f"{api}/runs/search", {"experiment_ids": [ids["fmbench/board"]], "max_results": 100})["runs"]
        names = {r["info"]["run_name"]: r for r in found}
        assert set(names) == NAMES
        metrics = {m["key"]: m["value"] for m in names["fm_ot/0"]["data"]["metrics"]}
        assert metrics["likelihood/nll"] == 2 * number_for("board", "fm_ot", 0)
        filtered = {
            "experiment_ids": [ids["fmbench/board"]],
            "filter": "metrics.`likelihood/nll` > 0 and tags.method = 'ddpm' and tags.seed = '0'",
        }
        (ddpm,) = request(f"{api}/runs/search", filtered)["runs"]
        assert ddpm["info"]["run_name"] == "ddpm/0" and ddpm["info"]["status"] == "FINISHED"

        key = f"summary/{read_benchmark(results)['hash']}"
        wanted = {"experiment_ids": [ids[SUMMARY]], "filter": f"tags.`fmbench.key` = '{key}'"}
        (summary,) = request(f"{api}/runs/search", wanted)["runs"]
        run_id = summary["info"]["run_id"]
        root = {f["path"] for f in request(f"{api}/artifacts/list?run_id={run_id}")["files"]}
        assert root == {FILE, LISTED, "tables", "figures"}
        (figure,) = request(f"{api}/artifacts/list?run_id={run_id}&path=figures")["files"]
        assert (figure["path"], int(figure["file_size"])) == ("figures/fig07.png", 9)
        with pytest.raises(urllib.error.HTTPError, match=r"404|400"):
            request(f"{api}/runs/get?run_id={'0' * 32}")


def test_collect_without_a_config_writes_no_description(results, tmp_path):
    import shutil

    from fmbench.config import specs

    wanted = config(seeds=[0])
    shutil.copytree(results, tmp_path / "r")
    (tmp_path / "r" / FILE).unlink()
    arguments = ["--spec", canonical(specs.collect(wanted)), "--results", tmp_path / "r"]
    assert command("collect", *arguments).code == 0 and not (tmp_path / "r" / FILE).exists()
    assert command("collect", *arguments, "--config", canonical(written_out(wanted))).code == 0
    assert (tmp_path / "r" / FILE).read_bytes() == (results / FILE).read_bytes()
    write_json(tmp_path / "config.json", written_out(wanted))
    assert command("collect", *arguments, "--config", f"@{tmp_path / 'config.json'}").code == 0
    assert (tmp_path / "r" / FILE).read_bytes() == (results / FILE).read_bytes()
    assert "--config is not JSON" in command("collect", *arguments, "--config", "{").err
