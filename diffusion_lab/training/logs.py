"""Reading the log of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def read_log(folder: Path) -> pd.DataFrame:
    """The whole log of a run; a resumed session replaces the steps from its first on."""
    files = sorted(folder.glob("csv/version_*/metrics.csv"), key=lambda file: int(file.parent.name[8:]))
    sessions = [pd.read_csv(file) for file in files]
    starts = [session["step"].min() for session in sessions[1:]] + [float("inf")]
    kept = [session[session["step"] < start] for session, start in zip(sessions, starts, strict=True)]
    return pd.concat(kept).sort_values("step", kind="stable")
