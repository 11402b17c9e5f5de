from pathlib import Path

import pytest
import yaml
from command_line import CONFIG


@pytest.fixture
def configfile(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return path
