"""Result sets with one thing changed and with seals that fit: every command uses them or ends with words and exit code 3."""

import os
from random import Random

import pytest
from hostile_results import commands_for, mutants
from user_code import command

from fmbench.errors import DataError
from fmbench.store.unpack import unpack
from fmbench.store.usable import usable

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture(scope="module")
def shared_set(archive, tmp_path_factory):
    """The result set of a small run, as a stranger has it."""
    folder = tmp_path_factory.mktemp("shared") / "set"
    unpack(archive, folder)
    return folder


@pytest.mark.parametrize("seed", range(6))
def test_a_changed_set_is_used_or_refused_in_words(shared_set, tmp_path, seed):
    for mutant in mutants(shared_set, tmp_path / "work", seed, tries=4):
        for number, words in enumerate(commands_for(mutant, shared_set, tmp_path / "out", Random(mutant.change))):
            if words[0] == "mlflow-rebuild":  # it takes seconds; the campaign runs it
                continue
            os.makedirs(tmp_path / "out", exist_ok=True)
            said = command(*[word.replace(f"{tmp_path}/out", f"{tmp_path}/out/{mutant.change[:3]}{number}") for word in words])
            assert said.code in (0, 3), (mutant.change, words, said.err)
            assert said.code == 0 or "fmbench: error: " in said.err, (mutant.change, words, said.err)
            assert "Traceback" not in said.err and "\x1b" not in said.err + said.out, (mutant.change, words)


def test_what_values_make_a_library_raise_becomes_words(monkeypatch):
    for error in (OverflowError("cannot convert"), KeyError("x"), TypeError("y"), RecursionError(), MemoryError()):
        with (
            pytest.raises(DataError, match=rf"x.zip cannot be used \({type(error).__name__}: .*FMBENCH_DEBUG=1"),
            usable("x.zip"),
        ):
            raise error
    with pytest.raises(DataError, match=r"^as it is$"), usable("x.zip"):
        raise DataError("as it is")
    with pytest.raises(OSError, match="full"), usable("x.zip"):  # the disk is at fault, not the results
        raise OSError(28, "full")
    monkeypatch.setenv("FMBENCH_DEBUG", "1")
    with pytest.raises(KeyError), usable("x.zip"):
        raise KeyError("x")
