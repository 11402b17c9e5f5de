"""Downloads: retries, hashes, and the cache."""

import gzip
import hashlib
import os
import signal

import pytest
from data_sources import server
from killed import killed_writer

from fmbench.data import cifar, download, idx
from fmbench.data.sources import make
from fmbench.errors import DataError
from fmbench.store.temporary import abandoned


def test_a_download_is_retried_checked_and_kept(patient, tmp_path):
    with server([(500, b""), (200, b"trunc"), (200, b"content")]) as (url, asked):
        remote = download.Remote("a.bin", f"{url}/a.bin", f"sha256:{hashlib.sha256(b'content').hexdigest()}")
        place = download.fetch("some", [remote])
        assert place == tmp_path / "cache" / "some" and (place / "a.bin").read_bytes() == b"content"
        assert len(asked) == 3
        download.fetch("some", [remote])
        assert len(asked) == 3
        (place / "a.bin").write_bytes(b"damaged")
        download.fetch("some", [remote])
        assert len(asked) == 4 and (place / "a.bin").read_bytes() == b"content"


def test_a_download_with_a_wrong_hash_leaves_nothing(patient, tmp_path):
    with server([(200, b"other")]) as (url, asked):
        with pytest.raises(DataError, match=r"a.bin could not be downloaded: .*hash.*Expected http://127.*with md5:0+\. Without"):
            download.fetch("some", [download.Remote("a.bin", f"{url}/a.bin", "md5:" + 32 * "0")])
        assert len(asked) == 4
    assert not list((tmp_path / "cache" / "some").glob("*"))


def test_a_killed_download_leaves_nothing_behind_the_next_one(patient, tmp_path):
    content = hashlib.sha256(b"content").hexdigest()
    with server([(200, b"content")]) as (url, _):
        left = killed_writer(tmp_path / "cache" / "some" / "a.bin")
        place = download.fetch("some", [download.Remote("a.bin", f"{url}/a.bin", f"sha256:{content}")])
    assert not left.exists() and [path.name for path in place.iterdir()] == ["a.bin"]


def test_a_download_dies_in_its_temporary_folder(patient, tmp_path):
    """Whatever pooch writes while it downloads, is in a folder that the next download removes."""
    with server([(200, b"trunc")]) as (url, _):
        pid = os.fork()
        if pid == 0:
            import pooch

            pooch.hashes.file_hash = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # when the file is on the disk
            try:
                download.fetch("some", [download.Remote("a.bin", f"{url}/a.bin", "md5:" + 32 * "0")])
            finally:
                os._exit(1)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    (left,) = (tmp_path / "cache" / "some").iterdir()
    assert abandoned(left) and len(list(left.iterdir())) == 2  # with the lock


def test_a_download_without_a_server(patient):
    remote = download.Remote("a.bin", "http://127.0.0.1:9/a.bin", "md5:" + 32 * "0")
    with pytest.raises(DataError, match=r"a.bin could not be downloaded: .*Without a connection, get the .*parameter path"):
        download.fetch("some", [remote])


def test_fashion_mnist_is_downloaded_if_nothing_is_found_or_if_asked(fashion, patient, monkeypatch, tmp_path):
    folder, _ = fashion
    bodies = {f"{name}.gz": gzip.compress((gzip.decompress if p.suffix == ".gz" else bytes)(p.read_bytes()))
              for name in idx.FILES for p in folder.glob(f"{name}*")}  # fmt: skip
    with server([(200, bodies[r.name]) for r in idx.REMOTES]) as (url, asked):
        remotes = [download.Remote(n, f"{url}/{n}", f"md5:{hashlib.md5(b).hexdigest()}") for n, b in bodies.items()]
        monkeypatch.setattr(idx, "REMOTES", sorted(remotes, key=lambda r: [q.name for q in idx.REMOTES].index(r.name)))
        folder.rename(tmp_path / "debian")
        assert len(make("fashion_mnist", {}).train) == 41 and not asked
        assert len(make("fashion_mnist", {"download": True}).train) == 41 and len(asked) == 4
        (tmp_path / "debian").rename(tmp_path / "elsewhere")
        assert len(make("fashion_mnist", {}).train) == 41 and len(asked) == 4  # from the cache
        # An interrupted download is completed. download: true downloads a file even if a damaged one lies beside it.
        cached, name = tmp_path / "cache" / "fashion_mnist", idx.REMOTES[-1].name
        (cached / name).unlink()
        with pytest.raises(DataError, match="the four files of Fashion-MNIST are neither in"):
            make("fashion_mnist", {"download": False})
        by_hand = cached / idx.REMOTES[0].name  # compressed differently, with the same content, so it is not downloaded
        fetched = by_hand.read_bytes()
        by_hand.write_bytes(gzip.compress(gzip.decompress(fetched), 1, mtime=1))
        assert len(make("fashion_mnist", {}).train) == 41 and asked[4:] == [f"/{name}"]
        by_hand.write_bytes(fetched)
        (cached / name.removesuffix(".gz")).write_bytes(b"damaged")
        with pytest.raises(DataError, match=r"is not an IDX file.*download: true downloads it"):
            make("fashion_mnist", {})
        assert len(make("fashion_mnist", {"download": True}).train) == 41 and len(asked) == 5


def test_the_hashes_and_addresses_of_downloads():
    for remote in (*idx.REMOTES, cifar.ARCHIVE):
        kind, value = remote.hash.split(":")
        assert len(value) == {"md5": 32, "sha256": 64}[kind] and remote.url.endswith(remote.name)
