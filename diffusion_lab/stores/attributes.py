"""The attributes of a store that its reading depends on, with their types."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel

Role = Literal["forcing", "prognostic", "diagnostic"]
ROLES: tuple[Role, ...] = get_args(Role)


class VariableAttributes(BaseModel):
    """What a store's attributes say of one variable."""

    units: str | None = None
    long_name: str | None = None
    constant_in_time: bool = False
    computed_forcing: bool = False


class StoreAttributes(BaseModel):
    """Those attributes of a store that its reading depends on; others are not looked at."""

    variables: tuple[str, ...]
    roles: dict[str, Role] = {}
    variables_metadata: dict[str, VariableAttributes] = {}
    constant_fields: tuple[str, ...] = ()
    missing_dates: tuple[str, ...] = ()
    field_shape: tuple[int, ...] = ()
    statistics_start_date: str | None = None
    statistics_end_date: str | None = None
