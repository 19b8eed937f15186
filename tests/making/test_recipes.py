import pytest

from diffusion_lab.making.recipes import load_recipe, parse_recipe, shipped_recipes

MINIMAL = {
    "description": "d",
    "source": "x/*.nc",
    "statistics": {"start": 2000, "end": 2001},
    "variables": {"t2m": "t2m", "z500": {"variable": "z", "level": 500}},
}


def test_bare_names_stand_for_variables():
    recipe = parse_recipe(MINIMAL)
    assert recipe.variables["t2m"].variable == "t2m" and recipe.variables["t2m"].role == "prognostic"
    assert recipe.variables["z500"].level == 500
    assert recipe.source == ("x/*.nc",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"varables": {}}, "unknown key 'varables'; did you mean 'variables'"),
        (
            {"variables": {"z": {"variable": "z", "levl": 500}}},
            r"variables\.z: unknown key 'levl'; did you mean 'level'",
        ),
        (
            {"variables": {"z": {"variable": "z", "role": "input"}}},
            r"variables\.z\.role: .*'forcing', 'prognostic'",
        ),
        ({"variables": {}}, "variables: .*at least 1"),
        ({"forcings": ["cos_lat"]}, r"forcings\.0: unknown forcing 'cos_lat'; did you mean 'cos_latitude'"),
        ({"dates": {"start": "yesterday"}}, r"dates\.start: 'yesterday' is not a date; write it as 2025"),
        ({"dates": {"frequency": "daily"}}, r"dates\.frequency: 'daily' is not a length of time"),
        ({"statistics": {"start": 2000}}, r"statistics\.end is missing; write for example end: 2014"),
        ({"constants": {"t2m": "x"}}, "more than one variable is called t2m"),
        ({"dates_per_chunk": 0}, "dates_per_chunk: .*greater than or equal to 1"),
    ],
)
def test_wrong_recipes_say_where(change, message):
    with pytest.raises(ValueError, match=message):
        parse_recipe(MINIMAL | change)


def test_all_mistakes_are_told_at_once():
    with pytest.raises(ValueError) as error:
        parse_recipe(MINIMAL | {"forcings": ["x"], "dates": {"start": "y"}})
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize("name", ["era5_wb2_64x32", "regional_daily"])
def test_shipped_recipes_are_valid(name):
    assert name in shipped_recipes()
    load_recipe(name)


def test_dates_as_yaml_gives_them(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(
        "description: d\nsource: a.nc\nvariables: {t: t}\nstatistics: {start: 2000-01-31, end: 2001}\n"
        "dates: {end: 2002-01-01T06:00:00, missing: [2000-02-29]}\n"
    )
    recipe = load_recipe(file)
    assert (recipe.statistics.start, recipe.statistics.end) == ("2000-01-31", "2001")
    assert (recipe.dates.end, recipe.dates.missing) == ("2002-01-01T06:00:00", ("2000-02-29",))


def test_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="shipped recipes are era5_wb2_64x32, regional_daily"):
        load_recipe("era6")
    file = tmp_path / "r.yaml"
    file.write_text("a: [1")
    with pytest.raises(ValueError, match=r"r\.yaml is not valid YAML"):
        load_recipe(file)
    file.write_text("description: d")
    with pytest.raises(
        ValueError, match=r"r\.yaml:\n  source is missing; write for example source: data/\*\.nc"
    ):
        load_recipe(file)
    file.write_text("just words")
    with pytest.raises(ValueError, match=r"r\.yaml:\n  recipe: Input should be"):
        load_recipe(file)
