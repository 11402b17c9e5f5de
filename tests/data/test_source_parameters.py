"""Parameters of data sources, and what importing them costs."""

import importlib.util
import subprocess
import sys

import pytest

from fmbench.config import datasets
from fmbench.data.sources import bound, make
from fmbench.errors import DataError


@pytest.mark.parametrize(
    ("source", "parameters", "said"),
    [
        ("fashion_mnist", {"pad": "32"}, "pad: must be a whole number, not '32'"),
        ("fashion_mnist", {"pad": 27}, "pad: must be at least 28, not 27"),
        ("folder", {"path": "x", "size": 0, "test_share": 0.5}, None),
        ("folder", {"path": "x", "resize": "nearest"}, "resize: must be 'area' or 'antialias', not 'nearest'"),
        ("imagenet_downsampled", {"size": 32}, "does not take the parameters"),
        ("imagenet_downsampled", {"variant": "new"}, "variant: must be 'chrabaszcz2017' or 'antialiased'"),
        ("array", {"path": "x", "layout": "WHC"}, "layout: must be"),
        ("imagenet_downsampled", {"variant": "antialiased", "size": 48}, "size: must be 32 or 64, not 48"),
        ("pinwheel", {"blades": 0}, "blades: must be at least 1, not 0"),
        ("folder", {"path": "x", "test_share": 1.0}, "test_share: must be less than 1"),
        *((name, {split: 1}, f"{split}: .* 2, not 1") for name in datasets.POINT_SETS for split in ("train", "test")),
        ("rings", {"tset": 100}, "unexpected keyword argument 'tset'; it takes train, test, noise"),
        ("user_code:two_points", {"m": 3}, "unexpected keyword argument 'm'; it takes n, support"),
        ("user_code:not_a_data_set", {"m": 3}, "it takes none"),
        ("math:pi", {}, "'math:pi' is a float, not a function that returns a RawData"),
    ],
)
def test_parameters_that_a_source_does_not_take(source, parameters, said):
    with pytest.raises((ValueError, DataError), match=said):
        make(source, parameters)
    if said is not None:  # and that is known without any data
        with pytest.raises(ValueError, match=said):
            bound(source, parameters)


def test_parameters_are_bound_without_reading_data(tmp_path):
    for source in ("folder", "array", "hf_parquet", "user_code:not_a_data_set"):
        bound(source, {} if ":" in source else {"path": str(tmp_path / "nowhere")})
    assert bound("rings", {"train": 3, "test": 2, "noise": 1})().train.shape == (3, 2)


@pytest.mark.parametrize(
    ("source", "parameters", "shape"),
    [
        ("rings", {}, (2,)),
        ("fashion_mnist", {}, (1, 28, 28)),
        ("fashion_mnist", {"pad": 32}, (1, 32, 32)),
        ("fashion_mnist", {"pad": "32"}, None),
        ("imagenet_downsampled", {"variant": "antialiased", "size": 64}, (3, 64, 64)),
        ("imagenet", {}, (3, 64, 64)),
        ("imagenet", {"size": 256}, (3, 256, 256)),
        ("folder", {"path": "x"}, None),
        ("folder", {"path": "x", "size": 48, "channels": 1}, (1, 48, 48)),
        ("hf_parquet", {"path": "x", "size": 16}, (3, 16, 16)),
        ("array", {"path": "x"}, None),
        ("user_code:tall_images", {"size": 3}, None),
    ],
)
def test_shapes_known_before_anything_is_prepared(source, parameters, shape):
    assert datasets.sample_shape(source, parameters) == shape


def test_importing_the_sources_imports_no_decoder():
    """Only the source that needs a decoder imports it."""
    code = "import sys, fmbench.data.sources; print([m for m in ('PIL', 'sklearn', 'pooch', 'pyarrow') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_pooch_is_installed():
    assert importlib.util.find_spec("pooch") is not None, "pip install pooch: it is a dependency"
