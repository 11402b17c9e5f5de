"""What the tests of the command line share: a small config, a spec that runs in a moment, and a check of failed commands."""

from user_code import Said

CONFIG = {
    "seeds": [0, 5],
    "datasets": ["board", "digits"],
    "methods": ["fm_ot", {"name": "mine", "path": "cosine_vp", "prediction": "v"}],
    "settings": {
        "board": {"data": {"source": "checkerboard", "parameters": {"train": 30, "test": 10}}, "network": {"kind": "mlp"}},
        "digits": {"data": "digits", "network": {"kind": "unet"}},
    },
}
PREPARE = {"stage": "prepare", "dataset": "board", "source": "checkerboard", "parameters": {"train": 30, "test": 10}}


def check_failed(said: Said, code: int, *fragments: str) -> None:
    """Check that the command ended with ``code`` and one error message, without a traceback."""
    assert said.code == code, said
    assert said.err.startswith("fmbench: error: ")
    assert "Traceback" not in said.err
    for fragment in fragments:
        assert fragment in said.err
