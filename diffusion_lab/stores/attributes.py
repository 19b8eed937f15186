"""The attributes of a store that are used to read it, with their types."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel

Role = Literal["forcing", "prognostic", "diagnostic"]
ROLES: tuple[Role, ...] = get_args(Role)


def check_role(name: str, role: str) -> None:
    """Check the role of the variable `name`.

    Raises:
        ValueError: if there is no such role.
    """
    if role not in ROLES:
        raise ValueError(f"{name}: unknown role {role!r}; a role is one of {', '.join(ROLES)}.")


class VariableAttributes(BaseModel):
    """What the attributes of a store say about a variable."""

    units: str | None = None
    long_name: str | None = None
    constant_in_time: bool = False
    computed_forcing: bool = False


class StoreAttributes(BaseModel):
    """The attributes that are used; others are ignored."""

    variables: tuple[str, ...]
    roles: dict[str, Role] = {}
    variables_metadata: dict[str, VariableAttributes] = {}
    constant_fields: tuple[str, ...] = ()
    missing_dates: tuple[str, ...] = ()
    field_shape: tuple[int, ...] = ()
    statistics_start_date: str | None = None
    statistics_end_date: str | None = None
