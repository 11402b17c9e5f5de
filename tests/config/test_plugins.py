import math

import pytest

from fmbench.config.plugins import is_dotted, resolve


def test_a_name_of_the_registry():
    assert resolve({"a": 1, "b": 2}, "thing", "b") == 2


def test_a_dotted_name_is_imported():
    assert is_dotted("math:tau")
    assert not is_dotted("tau")
    assert resolve({}, "thing", "math:tau") == math.tau


@pytest.mark.parametrize("name", ["c", "math:no_such_attribute", "no_such_module_at_all:a"])
def test_unknown_names_say_what_and_which(name):
    with pytest.raises(ValueError, match=f"thing '{name}'") as caught:
        resolve({"a": 1, "b": 2}, "thing", name)
    if not is_dotted(name):
        assert "known: a, b" in str(caught.value)
