"""Methods in a config."""

import dataclasses

import pytest
from config_values import BASE, changed, config_error

from fmbench.config import specs
from fmbench.config.hashing import canonical
from fmbench.config.method_settings import method_from_values, method_values
from fmbench.config.methods import METHODS, TEACHER, Part
from fmbench.config.reading import parse
from fmbench.errors import ConfigError


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("path", "ot"),
        ("prediction", "x"),
        ("weighting", "epsilon"),
        ("time", "log_snr"),
        ("use", "fm_ot"),
        ("t_min", 0.1),
        ("t_max", 0.5),
        ("oracle", {}),
    ],
)
def test_a_known_method_cannot_be_changed(key, value):
    message = config_error(changed(("methods", [{"name": "ddpm", key: value}])))
    for fragment in ("methods.0: ", "ddpm is a known method", key, "Give the variant another name", "use: ddpm"):
        assert fragment in message


@pytest.mark.parametrize("given", [{"prediction": "v"}, {"path": "ot"}, {"weighting": "uniform"}])
def test_a_new_method_needs_path_and_prediction(given):
    message = config_error(changed(("methods.2", {"name": "mine", **given})))
    for fragment in ("methods.2: ", "'mine'", "needs at least path and prediction", "use: package.module:MY_METHOD"):
        assert fragment in message


def test_no_method_may_be_called_data():
    """Previews and figures show the real data by that name."""
    assert "methods.2" in config_error(changed(("methods.2.name", "data")))


def test_known_methods_resolve_to_the_registry():
    config = parse(changed(("methods", list(METHODS))))
    for name, method in METHODS.items():
        assert config.method(name).resolve() == method


def test_an_inline_method_resolves():
    entry = {
        "name": "mine",
        "path": {"name": "ve", "sigma_max": 10.0},
        "prediction": "epsilon",
        "weighting": {"name": "epsilon"},
        "time": {"name": "logit_normal", "std": 0.5, "corrected": True},
        "t_min": 0.1,
        "t_max": 0.9,
    }
    method = parse(changed(("methods", [entry]))).method("mine").resolve()
    assert method.name == "mine"
    assert method.path == Part("ve", {"sigma_max": 10.0})
    assert (method.prediction, method.weighting) == (Part("epsilon"), Part("epsilon"))
    assert method.time == Part("logit_normal", {"std": 0.5, "corrected": True})
    assert (method.t_min, method.t_max) == (0.1, 0.9)


def test_weighting_and_time_are_uniform_by_default():
    method = parse(BASE).method("mine").resolve()
    assert (method.weighting, method.time, method.t_min, method.t_max) == (Part("uniform"), Part("uniform"), None, None)


def test_use_starts_from_a_known_method():
    entry = {"name": "mine", "use": "scoreflow", "time": {"name": "log_snr", "corrected": True}}
    method = parse(changed(("methods", [entry]))).method("mine").resolve()
    assert method.name == "mine"
    assert (method.path, method.prediction, method.weighting) == (Part("vp"), Part("score"), Part("likelihood"))
    assert method.time == Part("log_snr", {"corrected": True})


def test_use_starts_from_a_plug_in_method():
    method = parse(changed(("methods", [{"name": "mine", "use": "user_code:MY_METHOD", "t_max": 0.75}]))).method("mine").resolve()
    assert (method.name, method.path, method.weighting) == ("mine", Part("cosine_vp"), Part("velocity"))
    assert (method.t_min, method.t_max) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("use", "fragments"),
    [
        ("no_such_module:M", ["method 'no_such_module:M' cannot be imported", "No module named"]),
        ("user_code:NO_SUCH_METHOD", ["method 'user_code:NO_SUCH_METHOD' cannot be imported", "NO_SUCH_METHOD"]),
        ("math:pi", ["math:pi is a float, not a fmbench.config.methods.Method"]),
    ],
)
def test_use_of_something_that_is_not_a_method_is_refused(use, fragments):
    with pytest.raises(ConfigError) as caught:
        parse(changed(("methods", [{"name": "mine", "use": use}]))).method("mine").resolve()
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize("name", METHODS)
def test_method_values_round_trip(name):
    assert method_from_values(method_values(METHODS[name])) == METHODS[name]


# Couplings


def test_independent_pairs_change_no_spec():
    plain, said, none = (
        specs.train(parse(changed(("methods", [{"name": "mine", "use": "fm_ot"} | more]))), "board", "mine", 0)
        for more in ({}, {"coupling": "independent"}, {"coupling": None})
    )
    assert canonical(plain) == canonical(said) == canonical(none)
    assert "coupling" not in plain["method"] and "coupling" not in method_values(METHODS["fm_ot"])
    assert "coupling" not in parse(changed(("methods", ["fm_ot"]))).method("fm_ot").model_dump()


def test_a_conditional_target_changes_no_spec():
    plain, said, marginal = (
        parse(changed(("methods", [{"name": "mine", "use": "fm_ot"} | more]))).method("mine").resolve()
        for more in ({}, {"target": "conditional"}, {"target": "marginal"})
    )
    assert method_values(plain) == method_values(said) and "target" not in method_values(plain)
    assert method_values(marginal) == method_values(plain) | {"target": {"name": "marginal", "parameters": {}}}
    assert method_from_values(method_values(marginal)) == marginal
    for entry, fragment in (
        ({"target": "mean"}, "'conditional' or 'marginal'"),
        ({"oracle": {}, "target": "marginal"}, "nothing"),
    ):
        assert fragment in config_error(changed(("methods", [{"name": "mine", "use": "fm_ot"} | entry])))


def test_a_coupling_by_name_or_with_parameters():
    for given, expected in (
        ("minibatch_ot", Part("minibatch_ot")),
        ({"name": "sinkhorn", "regularisation": 0.1}, Part("sinkhorn", {"regularisation": 0.1})),
        ({"name": "user_code:Reversed", "k": 2}, Part("user_code:Reversed", {"k": 2})),
    ):
        method = parse(changed(("methods", [{"name": "mine", "use": "fm_ot", "coupling": given}]))).method("mine").resolve()
        assert method.coupling == expected and method_from_values(method_values(method)) == method
    uncoupled = {"name": "mine", "use": "ot_cfm", "coupling": "independent"}
    assert parse(changed(("methods", [uncoupled]))).method("mine").resolve().coupling is None


def test_ot_cfm_is_fm_ot_with_a_coupling():
    assert METHODS["ot_cfm"] == dataclasses.replace(METHODS["fm_ot"], name="ot_cfm", coupling=Part("minibatch_ot"))


@pytest.mark.parametrize(
    ("entry", "fragments"),
    [
        ({"name": "mine", "use": "fm_ot", "coupling": "ot"}, ["unknown coupling", "independent, minibatch_ot, sinkhorn"]),
        ({"name": "oracle_ot", "coupling": "minibatch_ot"}, ["oracle_ot is a known method"]),
        ({"name": "mine", "use": "oracle_ot", "coupling": "sinkhorn"}, ["mine is an oracle", "coupling would change nothing"]),
    ],
)
def test_a_coupling_that_a_config_cannot_have(entry, fragments):
    message = config_error(changed(("methods", [entry])))
    assert all(fragment in message for fragment in fragments)


# Teachers


def test_rectified_flow_2_is_fm_ot_on_the_pairs_of_fm_ot():
    expected = dataclasses.replace(METHODS["fm_ot"], name="rectified_flow_2", teacher=Part("fm_ot", TEACHER))
    assert METHODS["rectified_flow_2"] == expected
    written = {"name": "mine", "use": "fm_ot", "teacher": "fm_ot"}
    method = parse(changed(("methods", ["fm_ot", written]))).method("mine").resolve()
    assert method == dataclasses.replace(expected, name="mine") == method_from_values(method_values(method))


@pytest.mark.parametrize(
    ("methods", "fragment"),
    [
        (["rectified_flow_2"], "rectified_flow_2 is trained on samples of fm_ot, which this config does not train; add fm_ot"),
        (
            [{"name": "a", "use": "fm_ot", "teacher": "b"}, {"name": "b", "use": "fm_ot", "teacher": "a"}],
            "the teachers a of b go round in a circle",
        ),
        ([{"name": "a", "use": "fm_ot", "teacher": "a"}], "the teachers a go round in a circle"),
        (["fm_ot", {"name": "a", "use": "oracle_ot", "teacher": "fm_ot"}], "a is an oracle"),
        (["fm_ot", {"name": "a", "use": "fm_ot", "teacher": {"name": "fm_ot", "pairs": 1}}], "pairs"),
    ],
)
def test_a_teacher_that_cannot_be(methods, fragment):
    assert fragment in config_error(changed(("methods", methods)))


def test_a_teacher_is_for_data_sets_without_a_condition():
    message = config_error(changed(("methods", ["fm_ot", "rectified_flow_2"]), ("settings.digits.condition", "label")))
    assert "goes with data sets without a condition; leave out the method, or the condition of digits" in message
