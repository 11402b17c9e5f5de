"""Oracles in a config."""

import dataclasses

import pytest
from config_values import changed, config_error

from fmbench.config.method_settings import OracleSettings
from fmbench.config.methods import METHODS, ORACLE, ORACLES, Part
from fmbench.config.reading import parse


@pytest.mark.parametrize(
    ("oracle", "place", "fragment"),
    [
        ({"bandwidth": -0.1}, "oracle.bandwidth", "must be at least 0.0, not -0.1"),
        ({"bandwidth": float("inf")}, "oracle.bandwidth", "finite"),
        ({"bandwidth": float("nan")}, "oracle.bandwidth", ""),
        ({"bandwidth": "1e-3"}, "oracle.bandwidth", "'1e-3' is written as a string"),
        ({"points": 0}, "oracle.points", "must be at least 1, not 0"),
        ({"points": 10.5}, "oracle.points", "must be a whole number, not 10.5"),
        ({"points": "1e4"}, "oracle.points", "'1e4' is written as a string"),
        ({"pints": 10}, "oracle.pints", "unknown key"),
        ("ot", "oracle", ""),
    ],
)
def test_impossible_oracle_settings_are_refused(oracle, place, fragment):
    message = config_error(changed(("methods.2", {"name": "mine", "path": "ve", "oracle": oracle})))
    assert f"methods.2.{place}: " in message and fragment in message


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "mine", "path": "ve", "oracle": {}},
        {"name": "mine", "use": "oracle_ot"},
        {"name": "mine", "use": "fm_ot", "oracle": {}},
        {"name": "oracle_vp"},
    ],
)
@pytest.mark.parametrize(
    "more", [{"learning_rate": 0.5}, {"iterations": 7}, {"clip_norm": None}, "prediction", "weighting", "time"]
)
def test_training_settings_of_an_oracle_are_refused(entry, more):
    """They would change nothing, and their author expects that they do."""
    given = {"training": more} if isinstance(more, dict) else {more: {"prediction": "velocity"}.get(more, "uniform")}
    message = config_error(changed(("methods.2", entry | given)))
    named = next(iter(more)) if isinstance(more, dict) else more
    if entry["name"] == "oracle_vp" and isinstance(more, str):
        assert "oracle_vp is a known method" in message and f"its {more} cannot be changed" in message
    else:
        assert (
            f"methods.2: {entry['name']} is an oracle, which is not trained, so {named} would change nothing; remove it"
            in message
        )


@pytest.mark.parametrize("name", ["oracle_ot", "oracle_vp"])
def test_a_known_oracle_cannot_be_changed(name):
    for change in ({"path": "ve"}, {"oracle": {"points": 5}}, {"t_max": 0.9}):
        message = config_error(changed(("methods.2", {"name": name, **change})))
        assert f"{name} is a known method" in message and f"use: {name}" in message


def test_a_new_oracle_needs_only_a_path():
    method = parse(changed(("methods.2", {"name": "mine", "path": {"name": "ve", "sigma_max": 9.0}, "oracle": {}}))).methods[2]
    resolved = method.resolve()
    assert resolved.path == Part("ve", {"sigma_max": 9.0}) and resolved.prediction == Part("velocity")
    assert resolved.oracle == METHODS["oracle_ot"].oracle
    message = config_error(changed(("methods.2", {"name": "mine", "oracle": {}})))
    assert "needs at least path and prediction" in message and "or path and oracle: {}" in message


def test_a_known_oracle_may_be_used_on_another_path():
    method = parse(changed(("methods.2", {"name": "mine", "use": "oracle_ot", "path": "ve"}))).methods[2].resolve()
    assert method == dataclasses.replace(METHODS["oracle_ot"], name="mine", path=Part("ve"))


def test_an_oracle_from_a_trained_method_predicts_the_velocity():
    """The closed form is that of the field, whatever the network would have predicted."""
    entry = {"name": "mine", "use": "ddpm", "oracle": {"points": 7, "bandwidth": 0.0}}
    method = parse(changed(("methods.2", entry))).methods[2].resolve()
    assert (method.path, method.prediction) == (Part("vp"), Part("velocity"))
    assert method.oracle == {"points": 7, "bandwidth": 0.0}


def test_known_oracles_do_not_share_their_settings():
    """A change to one would be a change to all."""
    known = [METHODS[name].oracle for name in ORACLES]
    assert len({id(values) for values in (*known, ORACLE)}) == len(known) + 1
    assert OracleSettings().model_dump() == ORACLE


@pytest.mark.parametrize("entry", ["oracle_ot", {"name": "far", "use": "oracle_vp"}, {"name": "own", "path": "ve", "oracle": {}}])
def test_impossible_training_settings_do_not_stop_an_oracle(entry):
    training = ("settings.board.training", {"precision": "tf32", "flips": True})
    impossible = [("processes", 3), ("datasets", ["board"]), training]
    assert parse(changed(*impossible, ("methods", [entry]))).processes == 3
    message = config_error(changed(*impossible, ("methods", [entry, "ddpm"])))
    assert "training of ddpm on board: batch_size (256) must be a multiple of processes" in message
