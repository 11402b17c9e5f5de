"""Reading a config: files, merging, YAML, and the lines of an error."""

import pytest
import yaml
from config_values import BASE, changed, config_error

from fmbench.config.reading import RENAMED, load, parse
from fmbench.config.yamlfile import read
from fmbench.errors import ConfigError


def test_later_files_are_merged_into_earlier_ones(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(yaml.safe_dump(BASE))
    second.write_text("seeds: [7]\nsettings: {board: {training: {learning_rate: 0.5}}}\n")
    config = load(str(first), str(second))
    assert config.seeds == [7]
    training = config.settings["board"].training
    assert (training.learning_rate, training.iterations, training.warmup_iterations) == (0.5, 100, 10)
    assert config.settings["digits"] == parse(BASE).settings["digits"]


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (None, ["there is no config file", "missing.yaml", "--configfile"]),
        ("seeds: [0", ["missing.yaml", "not valid YAML"]),
        ("- seeds", ["missing.yaml", "must hold a mapping (key: value), not a list"]),
        ("", ["datasets: this key is missing", "methods: this key is missing", "settings: this key is missing"]),
        ("[]", ["missing.yaml", "must hold a mapping (key: value), not a list"]),
        ("seeds: 2024-13-45", ["missing.yaml", "not valid YAML", "month must be in 1..12"]),
        ("seeds: [0]\ndevice: cpu\nseeds: [1]", ["missing.yaml: ", "'seeds'", "twice, in line 1 and in line 3", "keep one"]),
        ("tracking:\n  uri: a\n  'uri': b", ["missing.yaml: ", "'uri'", "twice, in line 2 and in line 3"]),
        ("tracking: {uri: a, uri: b}", ["missing.yaml: ", "'uri'", "twice, in line 1 and in line 1"]),
        ("device: cpu\nseeds: [010]", ["missing.yaml: 010 in line 2 is the number 8 to YAML", "write 8", "'010' in quotes"]),
        ("seeds: [1:30]", ["missing.yaml: 1:30 in line 1 is the number 90 to YAML", "base 60", "write 90"]),
        ("live_after: 1:30.5", ["missing.yaml: 1:30.5 in line 1 is the number 90.5 to YAML"]),
    ],
)
def test_a_file_that_is_not_a_config_is_refused(tmp_path, text, fragments):
    path = tmp_path / "missing.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_a_folder_is_not_a_config_file(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path} is a folder, not a config file; name a file in it"):
        load(str(tmp_path))


def test_a_key_may_override_a_merged_one(tmp_path):
    """Merge keys are YAML's way to reuse a mapping."""
    path = tmp_path / "config.yaml"
    own = "a: {deep: {more: &more {<<: &off {x: 1, v: 0, 'z': 0x10}, x: 2}}}\nb: {<<: *more, x: 3, w: 0}\n"
    path.write_text(own)
    off = {"x": 1, "v": 0, "z": 16}
    assert read(str(path)) == {"a": {"deep": {"more": off | {"x": 2}}}, "b": off | {"x": 3, "w": 0}}


@pytest.mark.parametrize(
    "place",
    [
        "seedz",
        "tracking.url",
        "settings.board.trainning",
        "settings.board.data.sauce",
        "settings.board.network.widht",
        "settings.digits.network.widht",
        "settings.board.training.lr",
        "settings.board.evaluation.swep",
        "settings.board.evaluation.sweep.nfes",
        "settings.board.evaluation.sample.tolerance",
        "settings.board.evaluation.likelihood.prob",
        "settings.board.evaluation.features.epoch",
        "methods.2.wieghting",
        "methods.2.training.betas",
    ],
)
def test_an_unknown_key_is_reported_at_any_depth(place):
    assert f"{place}: unknown key" in config_error(changed(("methods.2.training", {}), (place, 1)))


@pytest.mark.parametrize(
    ("place", "meant"),
    [
        ("seedz", "seeds"),
        ("settings.board.trainning", "training"),
        ("settings.board.evaluation.likelihood.prob", "probe"),
        ("settings.board.evaluation.sweep.iterations", None),  # a key of another section
        ("methods.2.wieghting", "weighting"),
    ],
)
def test_an_unknown_key_that_is_spelled_almost_like_a_known_one(place, meant):
    question = f"; did you mean {meant}?" if meant else ""
    assert config_error(changed((place, 1))) == f"the config has errors:\n  {place}: unknown key{question}"


def test_all_errors_are_reported_at_once():
    message = config_error(changed(("settings.board.training.lr", 1), ("settings.digits.network.widht", 1), ("seeds", [])))
    assert len(message.splitlines()) == 4


def test_changing_an_anchor_does_not_change_its_alias(tmp_path):
    """As in Snakemake, a later file changes only the keys that it names."""
    board = "{data: checkerboard, network: {kind: mlp}}"
    (tmp_path / "a.yaml").write_text(f"datasets: [one, two]\nmethods: [fm_ot]\nsettings: {{one: &s {board}, two: *s}}\n")
    (tmp_path / "b.yaml").write_text("settings: {one: {network: {width: 5}}}\n")
    config = load(str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert [config.dataset(name).network.width for name in ("one", "two")] == [5, 512]


def test_a_config_that_contains_itself_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "datasets: [one]\nmethods: [fm_ot]\n"
        "settings: {one: {data: {source: digits, parameters: &a {test: 360, x: *a}}, network: {kind: unet}}}\n"
    )
    with pytest.raises(ConfigError, match=r"a\.yaml contains itself: an alias"):
        load(str(tmp_path / "a.yaml"))
    with pytest.raises(ConfigError, match="the config contains itself: an alias"):
        parse(yaml.safe_load((tmp_path / "a.yaml").read_text()))


def test_json_with_tabs_and_merge_keys_are_read(tmp_path):
    (tmp_path / "a.json").write_text('{\n\t"seeds": [1],\n\t"datasets": ["x"]\n}\n')
    assert read(str(tmp_path / "a.json")) == {"seeds": [1], "datasets": ["x"]}
    (tmp_path / "twice.json").write_text('{"seeds": [1],\n"seeds": [2]}\n')
    with pytest.raises(ConfigError, match="'seeds' is there twice, in line 1 and in line 2"):
        read(str(tmp_path / "twice.json"))
    (tmp_path / "b.yaml").write_text("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b}\n")
    assert read(str(tmp_path / "b.yaml"))["c"] == {"x": 1, "y": 2}


OLD_KEYS = {
    "settings.digits.evaluation.along": "learning_curve",
    "settings.digits.evaluation.budget": "few_step",
    "settings.digits.evaluation.draws": "dequantisation",
    "settings.digits.evaluation.states": "trajectory",
    "settings.digits.evaluation.features.also": "more_extractors",
    "settings.digits.evaluation.features.infinity": "infinity_sizes",
    "settings.digits.evaluation.features.most": "max_samples",
    "settings.digits.evaluation.features.nearest": "neighbours",
}


@pytest.mark.parametrize("place", OLD_KEYS)
def test_an_old_key_is_reported_with_its_new_name(place):
    assert config_error(changed((place, {}))) == f"the config has errors:\n  {place}: this key is called {OLD_KEYS[place]} now"


def test_new_names_of_old_keys_are_those_that_settings_have():
    assert {".".join(place.split(".")[-2:]): new for place, new in OLD_KEYS.items()} == RENAMED
    evaluation = parse(BASE).settings["digits"].evaluation
    for place, new in RENAMED.items():
        section = evaluation if place.startswith("evaluation.") else evaluation.features
        assert new in type(section).model_fields and place.split(".")[1] not in type(section).model_fields


@pytest.mark.parametrize(
    "place",
    [
        "along",
        "settings.digits.draws",
        "settings.digits.training.most",
        "settings.digits.evaluation.also",
        "settings.digits.evaluation.nearest",
        "settings.digits.evaluation.features.along",
        "settings.digits.evaluation.features.kid.infinity",
        "settings.digits.evaluation.sweep.draws",
        "methods.2.training.budget",
    ],
)
def test_an_old_key_in_another_section_is_an_unknown_key(place):
    assert config_error(changed(("methods.2.training", {}), (place, 1))) == f"the config has errors:\n  {place}: unknown key"
