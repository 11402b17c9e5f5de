"""The network of a data set in a config."""

import pytest
import yaml
from config_values import changed, config_error

from fmbench.config.reading import load
from fmbench.errors import ConfigError


def test_a_missing_kind_is_the_only_error_reported():
    message = config_error(changed(("settings.board.network", {"width": 8})))
    assert "settings.board.network" in message and "kind" in message and "mlp" in message
    assert "width: unknown key" not in message


@pytest.mark.parametrize(
    ("network", "takes", "strange"),
    [
        ({"kind": "mlp"}, "mlp takes kind, width, depth", "channels, dropout"),
        ({"kind": "mynet:Net", "parameters": {"width": 8}}, "mynet:Net takes kind, parameters", "channels, dropout"),
    ],
)
def test_a_network_merged_into_one_of_another_kind_is_explained(tmp_path, network, takes, strange):
    """The error is one line, which says where the keys may come from."""
    files = [tmp_path / "default.yaml", tmp_path / "mine.yaml"]
    files[0].write_text(yaml.safe_dump(changed(("settings.digits.network.dropout", 0.5))))
    files[1].write_text(yaml.safe_dump({"settings": {"digits": {"network": network}}}))
    with pytest.raises(ConfigError) as caught:
        load(*map(str, files))
    _, line = str(caught.value).splitlines()
    assert (
        f"settings.digits.network: a network of kind {takes}" in line
        and f", but not {strange}. An earlier config file may have set these" in line
    )
    assert "files are merged key by key. If so, give your data set a name that no earlier file uses" in line


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"kind": "mynet:Net", "parametres": {}}, "network.parametres: unknown key"),
        ({"kind": "mynet:Net", "parameters": 3}, "network.parameters: "),
    ],
)
def test_errors_of_a_plug_in_network_are_those_of_its_kind(network, message):
    found = config_error(changed(("settings.board.network", network)))
    assert f"settings.board.{message}" in found and len(found.splitlines()) == 2
