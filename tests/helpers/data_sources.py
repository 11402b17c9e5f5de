"""Sources of data as these tests write them: pictures, folders of pictures, IDX files, a server; and their preparation."""

import contextlib
import http.server
import struct
import threading
from pathlib import Path

import numpy as np
from PIL import Image

from fmbench.data.prepared import DataSet, read
from fmbench.data.sources import make
from fmbench.data.writer import write

SPEC = {"stage": "prepare", "dataset": "some", "source": "x", "parameters": {}}


def prepared(source: str, folder: Path, **parameters) -> DataSet:
    write(make(source, parameters), folder, SPEC | {"source": source, "parameters": parameters})
    return read(folder)


def picture(height: int = 30, width: int = 20, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Smooth colours, so that JPEG changes little."""
    g = np.random.default_rng(seed)
    small = Image.fromarray(g.integers(0, 256, (3, 4, 3), np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, path: Path, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def tree(root: Path, files: dict[str, int]) -> Path:
    """So many images for each folder, with different sizes and contents."""
    for k, (name, n) in enumerate(files.items()):
        for i in range(n):
            saved(picture(20 + i, 24, seed=100 * k + i), root / name / f"{i:03}.png")
    return root


def idx_bytes(values: np.ndarray) -> bytes:
    return bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.astype(np.uint8).tobytes()


@contextlib.contextmanager
def server(answers: list[tuple[int, bytes]]):
    """A server that gives these answers in turn, the last one for ever; yields its address and the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers[min(len(asked), len(answers) - 1)]
            asked.append(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http_server.server_port}", asked
    finally:
        http_server.shutdown()
        http_server.server_close()
