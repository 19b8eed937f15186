"""What leaves the tuner: the setting for an inference file, as Python, and the forecast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from diffusion_lab.widgets.tuner.session import Session
from diffusion_lab.widgets.tuner.setting import Setting

YAML, PYTHON, NETCDF = "predict_kwargs.yaml", "forecast.py", "forecast.nc"


def export(folder: str | Path, setting: Setting, session: Session) -> list[Path]:
    """Write `predict_kwargs.yaml`, `forecast.py` and, of a finished result, `forecast.nc`.

    Returns:
        The files.
    """
    result = session.result(setting)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / YAML, folder / PYTHON]
    files[0].write_text(as_yaml(setting))
    files[1].write_text(as_python(setting, session))
    if result is not None:
        files.append(folder / NETCDF)
        packed = {
            name: {"zlib": True, "complevel": 4, "dtype": "float32"} for name in result.dataset.data_vars
        }
        result.dataset.to_netcdf(files[-1], engine="h5netcdf", encoding=packed)
    return files


def as_yaml(setting: Setting) -> str:
    """The block of an inference file, as `diffusion-lab forecast FILE.yaml …` and the guide take it."""
    return yaml.safe_dump({"predict_kwargs": setting.predict_kwargs}, sort_keys=False)


def as_python(setting: Setting, session: Session) -> str:
    """A script that makes the same forecast, bit for bit on the same machine."""
    kwargs = setting.predict_kwargs
    return f"""\
{session.loading(setting)}
forecast = forecaster.forecast(
    {setting.date!r},
    steps={setting.steps},
    members={setting.members},
    seed={setting.seed},
    noise_scheduler_params={_literal(kwargs["noise_scheduler_params"])},
    sampler_params={_literal(kwargs["sampler_params"])},
    members_per_call={session.members_per_call(setting.device)},
)
"""


def _literal(options: dict) -> str:
    def spell(value: object) -> str:
        if isinstance(value, float) and not np.isfinite(value):
            return f'float("{value}")'
        return repr(value)

    return "{" + ", ".join(f'"{name}": {spell(value)}' for name, value in options.items()) + "}"
