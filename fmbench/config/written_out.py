"""A whole config written out, so that it can be read again without the code of its plug-ins."""

from typing import Any

from fmbench.config.config import Config
from fmbench.config.method_settings import MethodSettings
from fmbench.config.methods import MORE_PARTS, PARTS
from fmbench.config.plugins import is_dotted


def written_out(config: Config) -> dict[str, Any]:
    """The whole config without file locations and tracking, in a form that is read without importing a plug-in.

    A method that is a plug-in is written out.
    """
    values = config.model_dump(exclude={"results_dir", "tracking"})
    values["settings"] = {name: values["settings"][name] for name in config.datasets}
    values["methods"] = [_method(m) for m in config.methods]
    return values


def _method(settings: MethodSettings) -> dict[str, Any]:
    values = settings.model_dump()
    if settings.use is None or not is_dotted(settings.use):
        return values
    method = settings.resolve()
    for name in ("path",) if method.oracle is not None else (*PARTS, *MORE_PARTS):
        part = getattr(method, name)
        if part is not None:
            values[name] = {"name": part.name, **part.parameters}
    return values | {"use": None, "t_min": method.t_min, "t_max": method.t_max, "oracle": method.oracle}
