"""The roles of the variables, and their order in the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from diffusion_lab.stores.forcings import COMPUTED_FORCINGS

if TYPE_CHECKING:
    from diffusion_lab.stores.store import Store


@dataclass(frozen=True)
class Variables:
    """Names by role; `input` is prognostic then forcing, `output` prognostic then diagnostic.

    The prognostic variables come first in both, so no index table is needed.

    Attributes:
        prognostic: inputs and outputs.
        forcing: inputs only, whether constant, computed (`COMPUTED_FORCINGS`) or prescribed.
        diagnostic: outputs only.
    """

    prognostic: tuple[str, ...]
    forcing: tuple[str, ...] = ()
    diagnostic: tuple[str, ...] = ()
    input: tuple[str, ...] = field(init=False, repr=False)
    output: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for role in ("prognostic", "forcing", "diagnostic"):
            object.__setattr__(self, role, tuple(getattr(self, role)))
        object.__setattr__(self, "input", self.prognostic + self.forcing)
        object.__setattr__(self, "output", self.prognostic + self.diagnostic)
        names = self.prognostic + self.forcing + self.diagnostic
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"a variable has one role, but {', '.join(twice)} has several")
        if not self.prognostic:
            raise ValueError("there is no prognostic variable; a forecast needs at least one to step forward")

    @classmethod
    def of(cls, store: Store, computed: Sequence[str] = ()) -> Variables:
        """All variables of a store by role, and computed forcings, which the store may lack.

        Raises:
            ValueError: if a forcing in `computed` cannot be computed.
        """
        if unknown := ", ".join(name for name in computed if name not in COMPUTED_FORCINGS):
            known = ", ".join(COMPUTED_FORCINGS)
            raise ValueError(f"cannot compute the forcings {unknown}; the computed forcings are {known}")
        roles: dict[str, list[str]] = {"prognostic": [], "forcing": [], "diagnostic": []}
        for name in store.variables:
            roles[store.roles[name]].append(name)
        roles["forcing"] += [name for name in computed if name not in roles["forcing"]]
        return cls(*map(tuple, roles.values()))
