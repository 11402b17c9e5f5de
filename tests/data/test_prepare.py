"""The stage that prepares a data set."""

import numpy as np
import pytest
from data_sources import SPEC

from fmbench.data.prepared import read
from fmbench.errors import DataError
from fmbench.stages import prepare
from fmbench.system.progress import Console

G = np.random.default_rng(0)


def test_the_stage_decodes_in_processes_and_resumes(ilsvrc, tmp_path):
    parameters = {"path": str(ilsvrc), "size": 16}
    spec = SPEC | {"source": "imagenet", "parameters": parameters}
    console = Console("prepare", "none", tmp_path / "log")
    one = sorted(ilsvrc.glob("train/*/*.JPEG"))[0]
    data = one.read_bytes()
    one.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        prepare.run(spec, tmp_path / "out", console, workers=2)
    one.write_bytes(data)
    prepare.run(spec, tmp_path / "out", console, workers=2)
    prepare.run(spec, tmp_path / "alone", console)
    for path in (tmp_path / "alone").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert "samples are on the disk already" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("labels", "found"), [([0, 0, 1, 1, 3], True), ([0, 1, 1, 0, 3], False), ([2, 2, 2, 2, 2], False)])
def test_a_split_sorted_by_class_is_reported(tmp_path, labels, found):
    images = G.integers(0, 256, (5, 3, 40, 40), np.uint8)  # a piece each
    np.savez(tmp_path / "a.npz", train=images, test=images, y=[3, 0, 1, 0, 2], z=labels)
    parameters = {"path": str(tmp_path / "a.npz"), "train_labels": "y", "test_labels": "z"}
    spec = SPEC | {"source": "array", "parameters": parameters}
    prepare.run(spec, tmp_path / "out", Console("prepare", "none", tmp_path / "log"))
    splits = read(tmp_path / "out").manifest["splits"]
    assert [splits[s]["sorted_by_class"] for s in ("train", "test")] == [False, found]
    assert ("warning: the test samples are sorted by class" in (tmp_path / "log").read_text()) == found
