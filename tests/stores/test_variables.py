import pytest

from diffusion_lab.making import Variable, create_store
from diffusion_lab.stores.variables import Variables


def test_inputs_and_outputs_both_begin_with_the_prognostic_variables():
    variables = Variables(prognostic=["t", "z"], forcing=["insolation"], diagnostic=["tp"])
    assert variables.input == ("t", "z", "insolation")
    assert variables.output == ("t", "z", "tp")
    assert variables.prognostic == ("t", "z")


def test_roles_of_a_store_plus_computed_forcings(toy_store):
    variables = Variables.of(toy_store, ["insolation", "cos_julian_day"])
    assert variables.prognostic == ("t850", "msl")
    assert variables.forcing == ("orography", "insolation", "cos_julian_day")
    diagnostic = Variables.of(toy_store.with_roles(diagnostic=["msl"]))
    assert (diagnostic.input, diagnostic.output) == (("t850", "orography"), ("t850", "msl"))


def test_a_forcing_that_the_store_holds_is_not_taken_twice(tmp_path, metadata, fields):
    metadata.variables[2] = Variable("insolation", "1", "forcing", computed_forcing=True)
    store = create_store(tmp_path / "s.zarr", metadata, lambda times: fields[times])
    assert Variables.of(store, ["cos_latitude", "insolation"]).forcing == ("insolation", "cos_latitude")


def test_unknown_computed_forcings_are_named(toy_store):
    with pytest.raises(ValueError, match=r"forcings moonlight; the computed forcings are .*insolation"):
        Variables.of(toy_store, ["moonlight", "insolation"])


def test_one_role_each_and_something_to_forecast():
    with pytest.raises(ValueError, match="one role, but t has several"):
        Variables(["t", "z"], forcing=["t"])
    with pytest.raises(ValueError, match="but q has several"):
        Variables(["t"], diagnostic=["q", "q"])
    with pytest.raises(ValueError, match="no prognostic variable"):
        Variables([], forcing=["t"])
