"""``--spec`` and `fmbench spec`."""

import json

import pytest
from command_line import PREPARE, check_failed
from config_values import EVALUATIONS
from user_code import command

from fmbench.config import specs
from fmbench.config.reading import load
from fmbench.config.stages import GATHERED


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("{", ["--spec is not JSON and not a file with JSON", "Print one with `fmbench spec`"]),
        ("", ["--spec is not JSON"]),
        ("@no/such/file", ["--spec is not JSON and not a file with JSON", "no/such/file"]),
        ("[1]", ["--spec must be an object with a stage", "fmbench spec"]),
        ("{}", ["--spec must be an object with a stage"]),
        ('{"dataset": "digits"}', ["--spec must be an object with a stage"]),
    ],
)
@pytest.mark.parametrize("stage", ["prepare", "sample"])
def test_text_that_is_no_spec_is_refused(tmp_path, stage, text, fragments):
    more = [] if stage == "prepare" else ["--data", tmp_path, "--model", tmp_path]
    check_failed(command(stage, "--spec", text, "--out", tmp_path / "out", *more), 2, *fragments)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("command_of", "stage", "options"),
    [
        ("table1", "table4", ["--records", "r"]),
        ("table4", "table1", ["--rows", "r"]),
        ("dequantisation", "likelihood", ["--data", "d", "--model", "m", "--cache", "c"]),
        ("theory", "check", ["--summary", "s"]),
        ("train", "oracles", ["--data", "d", "--checkpoints", "c"]),
    ],
)
def test_the_spec_of_another_stage_is_refused(tmp_path, command_of, stage, options):
    spec = json.dumps({"stage": stage, "dataset": "d", "method": "m", "methods": [], "seed": 0, "draws": {}, "overrides": {}})
    said = command(command_of, "--spec", spec, "--out", tmp_path / "out", *options)
    check_failed(said, 2, f"--spec is for the stage '{stage}', not for `fmbench {command_of}`", "Print one with `fmbench spec`")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("stage", "key"), [("table4", "draws"), ("gather", "kind")])
def test_a_spec_that_is_cut_short_is_refused(tmp_path, stage, key):
    options = ["--out", tmp_path / "out"] if stage == "table4" else ["--results", tmp_path / "out"]
    said = command(stage, "--spec", json.dumps({"stage": stage}), *options)
    check_failed(said, 2, f"--spec has no '{key}', which the stage '{stage}' needs", "Print one with `fmbench spec`")
    assert not (tmp_path / "out").exists()


def test_a_spec_is_read_from_a_file(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps(PREPARE))
    said = command("prepare", "--spec", f"@{tmp_path / 'spec.json'}", "--out", tmp_path / "data", "--progress", "lines")
    assert said.code == 0
    assert f"prepare board: 30 train, 10 test samples of shape [2] -> {tmp_path / 'data'}" in said.err
    assert (tmp_path / "data" / "manifest.json").exists()


@pytest.mark.parametrize(
    ("stage", "arguments", "expected"),
    [
        ("check", [], lambda c: specs.check(c)),
        ("collect", [], lambda c: specs.collect(c)),
        ("table1", [], lambda c: specs.table1(c)),
        ("table4", [], lambda c: specs.table4(c)),
        ("theory", [], lambda c: specs.theory(c)),
        *(("gather", [kind], lambda c, kind=kind: specs.gather(kind, c)) for kind in GATHERED),
        ("prepare", ["board"], lambda c: specs.prepare(c, "board")),
        ("features", ["digits"], lambda c: specs.features(c, "digits")),
        ("train", ["board", "mine", 5], lambda c: specs.train(c, "board", "mine", 5)),
        ("train", ["digits", "fm_ot"], lambda c: specs.train(c, "digits", "fm_ot", 0)),
        *(
            (stage, ["board", "fm_ot", 5], lambda c, stage=stage: specs.evaluate(stage, c, "board", "fm_ot", 5))
            for stage in EVALUATIONS
        ),
    ],
)
def test_spec_prints_the_spec_of_the_job(configfile, stage, arguments, expected):
    said = command("spec", stage, *arguments, "--configfile", configfile)
    assert said.code == 0, said.err
    assert json.loads(said.out) == expected(load(str(configfile)))


def test_a_printed_spec_runs_its_stage(configfile, tmp_path):
    spec = command("spec", "prepare", "board", "--configfile", configfile).out
    assert command("prepare", "--spec", spec, "--out", tmp_path / "data").code == 0
    assert json.loads((tmp_path / "data" / "manifest.json").read_text())["spec"] == PREPARE


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["trian", "board", "fm_ot"], ["unknown stage 'trian'"]),
        (["trian"], ["unknown stage 'trian'"]),
        (["train"], ["stage 'train' needs a data set; this config has board, digits"]),
        (["train", "board"], ["stage 'train' needs a method; this config has fm_ot, mine"]),
        (["train", "mnist", "fm_ot"], ["unknown data set 'mnist'; this config has board, digits"]),
        (["train", "board", "ddpm"], ["unknown method 'ddpm'; this config has fm_ot, mine"]),
        (["prepare", "mnist"], ["unknown data set 'mnist'"]),
        (["dequantisation"], ["stage 'dequantisation' needs a data set; this config has board, digits"]),
        (["dequantisation", "digits"], ["stage 'dequantisation' needs a method; this config has fm_ot, mine"]),
    ],
)
def test_spec_names_what_the_config_has_when_a_name_is_unknown_or_missing(configfile, arguments, fragments):
    check_failed(command("spec", *arguments, "--configfile", configfile), 2, *fragments)
