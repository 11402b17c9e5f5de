"""The conversion of points to float32, and the shift before it."""

import numpy as np
import pytest
import torch
import yaml
from data_sources import SPEC, prepared

from fmbench.data.conversion import number, rounded
from fmbench.data.prepared import read
from fmbench.data.raw import RawData, Stream
from fmbench.data.writer import write
from fmbench.errors import DataError

G = np.random.default_rng(0)
Z = G.standard_normal((1000, 2))


def saved(tmp_path, train, test=None):
    np.savez(tmp_path / "p.npz", train=train, test=train[:100] if test is None else test)
    return str(tmp_path / "p.npz")


FAR = np.array([0.0, 1.7e9])
CASES = {
    "times": (1.7e9 + Z, r"train, column 0: the conversion to float32.*loses what the values vary in.*\(2 of 2 columns are so\)"),
    "one column": (Z + FAR, r"train, column 1: .* rounding moves them by up to 3.77; 1000 different values become 3\. "),
    "big-endian": ((Z + FAR).astype(">f8"), "train, column 1: .*1000 different values become 3"),
    "longdouble": (Z.astype(np.longdouble) + FAR, "train, column 1: .*1000 different values become 5"),
    "beyond float64": (1e15 + np.round(8 * Z) / 8, "train, column 0: the conversion"),
    "one point at zero": (np.where(np.arange(1000)[:, None] > 0, 1.7e9 + Z, 0.0), "train, column 0: .* values become 4"),
    "two clusters": (np.where(np.arange(1000)[:, None] % 2 > 0, 1.7e9 + Z, Z), r"train, column 0: .* values become 50\d"),
    "below float32": (1e-60 * Z, "train, column 0: .* multiply the values in the file by a power of ten"),
    "subnormal": (1e-44 * Z, "train, column 0: .* multiply the values"),
    "above float32": (np.where(Z > 3, 1e39, Z), r"train, column \d: the value 1e\+39 is beyond the range of float32"),
    "infinite": (np.where(Z > 3, np.inf, Z), r"train: some points are not finite, such as inf in column \d"),
    "integers": (np.rint(100 * Z).astype(np.int64), "Points of integers: save them as float64"),
    "truth": (Z > 0, "of bool; expected images of uint8"),
    "complex": (Z + 1j, "of complex128; expected images"),
    "16-bit images": (np.zeros((9, 3, 4, 4), np.uint16), "of uint16; expected images of uint8"),
}


@pytest.mark.parametrize("case", CASES)
def test_points_that_float32_cannot_hold_are_refused(tmp_path, case):
    values, said = CASES[case]
    with pytest.raises(DataError, match=said):
        prepared("array", tmp_path / "out", path=saved(tmp_path, values))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_loss_in_the_test_split_or_in_a_late_piece_is_found(tmp_path):
    with pytest.raises(DataError, match="test, column 1: the conversion"):
        prepared("array", tmp_path / "out", path=saved(tmp_path, Z, (Z + FAR)[:50]))
    late = np.concatenate([Z, Z[:900] + 1.7e9])  # pieces of 437 points
    with pytest.raises(DataError, match="train, column 0: the conversion"):
        prepared("array", tmp_path / "out", path=saved(tmp_path, late))


@pytest.mark.parametrize("case", ["times", "one column", "big-endian", "longdouble", "one point at zero"])
def test_the_shift_in_the_message_is_one_that_works(tmp_path, case):
    values, _ = CASES[case]
    path = saved(tmp_path, values)
    with pytest.raises(DataError) as caught:
        prepared("array", tmp_path / "out", path=path)
    shift = yaml.safe_load(str(caught.value).partition("before: ")[2].partition(". To accept")[0])["shift"]
    found = prepared("array", tmp_path / "out", path=path, shift=shift)
    assert found.manifest["shift"] == shift
    restored = found.train.astype(np.float64) + np.asarray(shift)
    near = np.abs(values) > 0
    assert np.abs(restored - values.astype(np.float64))[near].max() < 1e-6
    assert len(np.unique(found.train[:, 1])) == len(np.unique(values[:, 1]))


HARMLESS = {
    "float64": Z,
    "many": 20 + G.standard_normal((100_000, 1)),
    "heavy tails": G.standard_cauchy((5000, 2)),
    "one huge value": np.where(np.arange(1000)[:, None] > 0, Z, 1e20),
    "a constant": np.stack([Z[:, 0], np.full(1000, 0.1)], 1),
    "noise of computation": np.stack([Z[:, 0], np.where(Z[:, 1] > 0, 0.3, 0.1 + 0.2)], 1),
    "steps": np.round(Z, 1),
    "far but wide": 1e5 + 1e3 * Z,
}


@pytest.mark.parametrize("case", HARMLESS)
def test_points_that_float32_holds_are_taken(tmp_path, case):
    values = HARMLESS[case]
    found = prepared("array", tmp_path / "out", path=saved(tmp_path, values))
    assert np.array_equal(found.train, values.astype(np.float32)) and found.manifest["shift"] == 0.0


def test_a_density_is_the_same_for_every_shift_and_follows_the_scale(tmp_path):
    """N(m, S^2) in the file: with the shift m, N(0, (scale S)^2) in model space, and log densities agree at every point."""
    m, spread, scale = np.array([1.7e9, -3e5]), np.array([2.0, 40.0]), [0.5, 0.025]
    x = m + spread * Z
    found = prepared("array", tmp_path / "out", path=saved(tmp_path, x), shift=m.tolist(), scale=scale)
    model = found.to_model(torch.from_numpy(np.array(found.train)), torch.zeros(())).numpy().astype(np.float64)
    log_p = (-0.5 * model**2 - 0.5 * np.log(2 * np.pi)).sum(1) + found.log_density_change()
    exact = (-0.5 * Z**2 - 0.5 * np.log(2 * np.pi) - np.log(spread)).sum(1)
    np.testing.assert_allclose(log_p, exact, atol=2e-6)
    np.testing.assert_allclose(found.to_data(model.astype(np.float32)), found.train, rtol=1e-6)
    entry = found.manifest["splits"]["train"]
    np.testing.assert_allclose(entry["column_std"], x.std(0), rtol=1e-6)
    np.testing.assert_allclose(np.array(entry["column_mean"]) + m, x.mean(0), rtol=1e-12)


def test_plug_ins_may_give_any_floats(tmp_path):
    for kind in (np.float16, np.float32, np.float64, ">f4"):
        write(RawData(Z.astype(kind), Z[:9].astype(kind), "points"), tmp_path, SPEC)
        assert np.array_equal(read(tmp_path).train, Z.astype(kind).astype(np.float32))
    with pytest.raises(DataError, match="column 1: the conversion"):
        write(RawData(Z + FAR, Z[:9], "points"), tmp_path, SPEC)
    write(RawData(Z + FAR, Z[:9] + FAR, "points", shift=FAR), tmp_path, SPEC)  # type: ignore[arg-type]
    np.testing.assert_allclose(read(tmp_path).train, Z, atol=1e-6)


def test_points_that_were_converted_are_made_again_after_a_kill(tmp_path):
    """What the conversion lost in the first pieces is not known any more."""

    def raw(kill: bool) -> RawData:
        def pieces(start, workers):
            assert start == 0
            yield Z[:500] + FAR, None
            if kill:
                raise KeyboardInterrupt
            yield Z[500:], None

        stream = Stream(pieces, 1000, str)
        return RawData(stream, stream, "points")

    with pytest.raises(KeyboardInterrupt):
        write(raw(True), tmp_path, SPEC)
    with pytest.raises(DataError, match="column 1: the conversion"):
        write(raw(False), tmp_path, SPEC)


@pytest.mark.parametrize("value", [0.0, 1.7e9, -1.7e22, 1e-30, 3.0, 1e16])
def test_numbers_are_read_back_from_yaml(value):
    assert yaml.safe_load(number(value)) == value and isinstance(yaml.safe_load(number(value)), float)


def test_numbers_are_rounded_to_about_the_spread():
    assert rounded(np.array([1234.567, -0.0421, 1699999999.95]), np.array([20.0, 0.003, 0.98])) == [1230.0, -0.042, 1.7e9]
