"""Configs with random mistakes are refused in words, one line for each error, or they are valid."""

import copy
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from config_fuzzer import mutations, single_mistakes, verdict

import fmbench
from fmbench.config.yamlfile import read

ROOT = Path(fmbench.__file__).parent.parent


def large_config() -> dict[str, Any]:
    """The default config with something in most places that it leaves to the defaults."""
    values = copy.deepcopy(read(str(ROOT / "config.yaml")))
    time = {"name": "logit_normal", "mean": 0.0}
    training = {"learning_rate": 0.1, "iterations": 5000, "clip_norm": 1.0, "schedule": "constant"}
    mine = {"name": "mine", "path": {"name": "vp", "beta_min": 0.1}, "prediction": "v", "weighting": "epsilon", "t_min": 0.1}
    values["methods"] += [
        mine | {"time": time, "training": training},
        {"name": "own", "path": "ve", "oracle": {"points": 5, "bandwidth": 0.1}},
    ]
    values["settings"]["checkerboard"]["data"] = {"source": "checkerboard", "parameters": {"train": 100, "test": 10}}
    values["settings"]["digits"]["evaluation"] |= {
        "features": {
            "extractor": "classifier",
            "more_extractors": ["efficientnet_lite0", {"extractor": "inception", "options": {"weights": "x"}}],
            "kid": {"subsets": 5},
            "infinity_sizes": 4,
            "reference_n": 100,
        },
        "sweep": {"solvers": ["euler", {"name": "heun", "grid": "karras", "nfe": [4, 8]}]},
        "trajectory": {"times": [0.0, 0.5, 1.0], "n": 4},
    }
    return values


def test_the_config_without_mistakes_is_valid():
    assert verdict(large_config()) == ""


def test_random_mistakes_are_refused_in_words():
    for what, values in itertools.islice(mutations(large_config(), seed=19), 100):
        assert verdict(values) == "", what


def test_a_nasty_value_in_any_place_is_refused_in_words():
    chance = random.Random(11)
    for what, values in single_mistakes(large_config()):
        if chance.random() < 0.01:
            assert verdict(values) == "", what


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"seeds": [0]}, ""),
        ({"results_dir": 5}, ""),
    ],
)
def test_an_incomplete_config_is_refused_in_words(values, found):
    assert verdict(values) == found


def test_the_judge_sees_code_in_a_message(monkeypatch):
    """Were it blind, the fuzzer would find nothing."""
    from fmbench.config import reading

    for text in ("String should match pattern '^[a-z]+$'", "Input should be a valid dictionary or instance of PathSettings"):
        monkeypatch.setattr(reading, "in_words", lambda error, text=text: text)
        assert verdict({"seeds": []}).startswith("code in a message")
    monkeypatch.setattr(reading, "in_words", lambda error: "two\nlines")
    assert verdict({"seeds": []}).startswith("a line that is not one error")
    monkeypatch.setattr(reading, "in_words", lambda error: 1 / 0)
    assert verdict({"seeds": []}).startswith("ZeroDivisionError")
