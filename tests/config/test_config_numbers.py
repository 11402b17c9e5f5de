"""Numbers and parameters of a config."""

from datetime import date

import pytest
import yaml
from config_values import BASE, changed, config_error

from fmbench.config.hashing import canonical
from fmbench.config.reading import load, parse
from fmbench.errors import ConfigError


def test_a_number_with_an_exponent_but_no_dot_is_a_string_in_yaml(tmp_path):
    """YAML does what the error explains."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(BASE).replace("learning_rate: 0.001", "learning_rate: 1e-4"))
    with pytest.raises(ConfigError, match=r"settings\.board\.training\.learning_rate: .*'1e-4'.*write 1\.0e-4"):
        load(str(path))
    path.write_text(path.read_text().replace("1e-4", "1.0e-4"))
    assert load(str(path)).settings["board"].training.learning_rate == 1e-4


@pytest.mark.parametrize(
    ("written", "remedy"),
    [
        ("1e-4", "1.0e-4"),
        ("1.0e3", "1.0e+3"),
        ("2E3", "2.0e+3"),
        ("-.5e3", "-0.5e+3"),
        ("7.e2", "7.e+2"),
        ("+1e+1", "+1.0e+1"),
    ],
)
@pytest.mark.parametrize("place", ["settings.digits.network.max_frequency", "methods.2.path.sigma_max"])
def test_the_remedy_for_an_exponent_is_a_number_to_yaml(written, remedy, place):
    """This holds for a setting and for an open parameter."""
    assert isinstance(yaml.safe_load(written), str) and yaml.safe_load(remedy) == float(written)
    message = config_error(changed(("methods.2.path", {"name": "ve"}), (place, written)))
    assert f"{place}: the number '{written}' is written as a string: in YAML an exponent needs a dot" in message
    assert f"write {remedy}" in message


@pytest.mark.parametrize(
    "place",
    [
        "settings.board.training.learning_rate",
        "settings.board.training.iterations",
        "settings.board.training.ema_decay",
        "settings.digits.network.max_frequency",
        "settings.board.network.width",
        "settings.board.evaluation.sample.rtol",
        "settings.board.evaluation.sweep.nfe.0",
        "settings.board.evaluation.likelihood.n",
        "methods.2.training.learning_rate",
        "methods.2.t_max",
        "seeds.1",
    ],
)
def test_a_number_written_as_a_string_is_refused(place):
    message = config_error(changed(("methods.2.training", {}), (place, "1e-4")))
    assert f"{place}: " in message
    assert "'1e-4' is written as a string" in message
    assert "write 1.0e-4" in message


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("methods.2.path", {"name": "ot", "sigma_min": "1e-4"}),
        ("methods.2.time", {"name": "logit_normal", "std": "1e-1"}),
        ("settings.board.data", {"source": "checkerboard", "parameters": {"train": "1e4"}}),
        ("methods.2.path", {"name": "ve", "sigmas": [{"max": "1.0e2"}]}),
    ],
)
def test_a_parameter_written_as_a_string_is_refused(place, value):
    """Parameters may have any name, but a number must not be a string."""
    assert "is written as a string" in config_error(changed((place, value)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1e3", "the number '1e3' is written as a string, but must be a whole number: write 1000"),
        ("10", "the number '10' is written as a string, but must be a whole number: write 10"),
        (1e3, "the number 1000.0 is written as a decimal, but must be a whole number: write 1000"),
    ],
)
@pytest.mark.parametrize("place", ["settings.board.training.iterations", "settings.board.evaluation.sample.n", "seeds.1"])
def test_a_whole_number_must_be_written_as_one(place, value, message):
    found = config_error(changed((place, value)))
    assert f"{place}: {message}" in found and "1.0e" not in found


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (date(2024, 1, 2), "a parameter must be text, a number, true, false, null, a list or a mapping, not the date 2024-01-02"),
        ([{"since": date(2024, 1, 2)}], "put it in quotes if it is text"),
        ({"of": {1: "a"}}, "the key 1 is not text; put it in quotes"),
        (float("inf"), "inf is not a finite number"),
        ({"a"}, "a list or a mapping, not a set; put it in quotes"),
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        "methods.2.path.own",
        "methods.2.time.own",
        "settings.board.data.parameters.own",
        "settings.board.network.parameters.own",
        "settings.digits.evaluation.features.options.own",
    ],
)
def test_a_parameter_must_be_of_a_json_type(place, value, message):
    parts = [("methods.2.path", {"name": "ve"}), ("methods.2.time", {"name": "uniform"})]
    more = [
        ("settings.board.network", {"kind": "user_code:Lines"}),
        ("settings.digits.evaluation.features.extractor", "user_code:E"),
    ]
    found = config_error(changed(*parts, *more, (place, value)))
    assert f"{place}: " in found and message in found
    plain = {"text": "2024-01-02", "list": [1, 0.5, True, None, {"deep": []}]}
    canonical(parse(changed(*parts, *more, (place, plain))).model_dump())


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "place", ["settings.board.training.learning_rate", "settings.board.evaluation.sample.rtol", "methods.2.t_max"]
)
def test_infinite_settings_are_refused(place, value):
    assert place in config_error(changed((place, value)))
