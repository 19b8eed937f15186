import json
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from diffusion_lab.inference import load_forecaster, load_release, save_release
from diffusion_lab.inference.release import describe_variables
from diffusion_lab.stores.attributes import StoreAttributes
from diffusion_lab.stores.variables import Variables


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return load_release(checkpoint)


def contents(path):
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads(file.metadata()["diffusion_lab"])


def test_float32_comes_back_exactly(loaded, tmp_path):
    release, model, latitudes, longitudes = loaded
    with torch.no_grad():
        model.output.weight[0, 0] = 1 / 3
    save_release(tmp_path / "r.safetensors", release, model, latitudes, longitudes, torch.float32)
    again, model_again, latitudes_again, longitudes_again = load_release(tmp_path / "r.safetensors")
    assert again == release
    np.testing.assert_array_equal([latitudes_again, longitudes_again], [latitudes, longitudes])
    assert latitudes_again.dtype == np.float64
    for name, tensor in model.state_dict().items():
        assert torch.equal(model_again.state_dict()[name], tensor), name
    x, y = torch.randn(1, 2, 1, 288, 5), torch.randn(1, 1, 1, 288, 2)
    sigma = torch.ones(1, 1, 1, 1, 1)
    assert torch.equal(model_again(x, y, sigma), model.eval()(x, y, sigma))


def test_half_precision_rounds_weights_and_nothing_else(loaded, tmp_path):
    release, model, latitudes, longitudes = loaded
    with torch.no_grad():
        model.output.weight[0, 0] = 1 / 3
    path = tmp_path / "r.safetensors"
    save_release(path, release, model, latitudes, longitudes)
    again = load_release(path)[1]
    assert not again.training
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter.half().float()), name
        assert again.get_parameter(name).dtype == torch.float32
    assert again.output.weight[0, 0] != model.output.weight[0, 0]
    assert torch.equal(again.tendency_stdev, model.tendency_stdev)
    assert path.stat().st_size < 2.4 * sum(p.numel() for p in model.parameters()) + 30_000


def test_the_document_says_what_is_needed(loaded, toy_store):
    release = loaded[0]
    assert (release.model, release.step) == ("DiffusionTendModelEncProcDec", "1d")
    assert release.graph["graph"] == "multi_scale"
    roles = {v.name: v.role for v in release.variables}
    assert roles == {
        "t850": "prognostic",
        "msl": "prognostic",
        "orography": "forcing",
        "cos_julian_day": "forcing",
        "insolation": "forcing",
    }
    t850 = release.variables[0]
    assert (t850.units, t850.long_name) == ("K", "temperature at 850 hPa")
    assert t850.mean == pytest.approx(toy_store.statistics.mean[0], rel=1e-6)
    assert release.variables[3].model_dump(include={"mean", "stdev", "units"}) == {
        "mean": 0.0,
        "stdev": 1.0,
        "units": "1",
    }
    assert release.field_shape == [12, 24]
    assert release.inference_defaults["diffusion_sampler"]["S_max"] == float("inf")
    assert release.training["command"] == "made by a test"


def test_units_are_those_of_the_store_and_unknown_where_it_says_none(toy_store, monkeypatch):
    about = {"t850": {"units": "K"}, "msl": {"long_name": "pressure"}}
    attributes = StoreAttributes.model_validate(toy_store.attributes | {"variables_metadata": about})
    monkeypatch.setattr(toy_store, "_about", attributes)
    variables = Variables(["t850", "msl"], ["insolation"])
    described = describe_variables(variables, torch.zeros(3), torch.ones(3), toy_store)
    assert [v.units for v in described] == ["K", "", "1"]  # a computed forcing has none


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 5000, -1])
def test_truncated_files_are_refused(checkpoint, tmp_path, kept):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(checkpoint.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"cut.safetensors is not a readable .* Copy it again"):
        load_release(path)


def test_random_bytes_are_refused(tmp_path):
    path = tmp_path / "noise.safetensors"
    path.write_bytes(np.random.default_rng(0).bytes(20_000))
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        load_release(path)


class Touch:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("dump", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))])
def test_pickles_are_refused_and_not_run(tmp_path, dump):
    path, trace = tmp_path / "bad.ckpt", tmp_path / "trace"
    dump({"state_dict": Touch(str(trace))}, path)
    for load in (load_release, load_forecaster):
        with pytest.raises(ValueError, match=r"A pickle .* never opened here"):
            load(path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if dump is torch.save else pickle.loads(path.read_bytes())
    assert trace.exists()  # it would have run


def test_other_safetensors_are_refused(tmp_path):
    save_file({"weight": torch.ones(3)}, tmp_path / "other.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="not a release checkpoint of diffusion_lab"):
        load_release(tmp_path / "other.safetensors")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*nowhere.safetensors"):
        load_release(tmp_path / "nowhere.safetensors")
    with pytest.raises(FileNotFoundError, match="no checkpoint 'nowhere'; give a path, or one of"):
        load_forecaster("nowhere")


def setting(*keys, to):
    """An edit of the document: the entry at `keys` becomes `to`."""

    def edit(document, tensors):
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return edit


def without(*names):
    """An edit of the tensors or the document: these entries are left out."""

    def edit(document, tensors):
        for name in names:
            (tensors if name in tensors else document).pop(name)

    return edit


TAMPERED = {
    "another class": (setting("model", to="os.system"), "holds a 'os.system'"),
    "another format": (setting("format", to="release 99"), "'release 99'; this version reads"),
    "extra key": (setting("code", to="import os"), "code"),
    "missing key": (without("variables"), "variables"),
    "extra key of a variable": (setting("variables", 0, "code", to="x"), "code"),
    "channels": (setting("arguments", "num_channels", to=32), "do not fit together"),
    "channels that are no number": (setting("arguments", "num_channels", to="many"), "do not fit together"),
    "layers": (setting("arguments", "num_layers", to=3), "do not fit together"),
    "unknown argument": (setting("arguments", "callback", to="os.system"), "do not fit together"),
    "argument of the wrong type": (setting("arguments", "num_layers", to=[1]), "num_layers"),
    "state model with tendency scales": (setting("model", to="DiffusionModelEncProcDec"), "tendency_mean"),
    "unknown graph": (setting("graph", "graph", to="os.system"), "os.system"),
    "unknown graph argument": (setting("graph", "shell", to="ls"), "shell"),
    "another graph": (setting("graph", "refinement", to=2), "not the one the weights were trained"),
    "graph that cannot be": (setting("graph", "num_nearest", to=-1), "num_nearest"),
    "fingerprint": (setting("graph_fingerprint", to="0" * 16), "not the one the weights were trained"),
    "fewer variables": (lambda d, t: d["variables"].pop(1), "variables"),
    "unknown role": (setting("variables", 1, "role", to="boss"), "role"),
    "standard deviation 0": (setting("variables", 0, "stdev", to=0.0), "stdev"),
    "mean that is no number": (setting("variables", 0, "mean", to="x"), "mean"),
    "field shape": (setting("field_shape", to=[12, 25]), "field_shape"),
    "step": (setting("step", to="soon"), "soon"),
    "sampler": (setting("inference_defaults", "diffusion_sampler", "sampler", to="os.system"), "os.system"),
    "sampler option": (setting("inference_defaults", "diffusion_sampler", "shell", to=1), "shell"),
    "schedule": (setting("inference_defaults", "noise_scheduler", "rho", to=-1), "rho"),
    "schedule without levels": (
        setting("inference_defaults", "noise_scheduler", to={"schedule_type": "karras"}),
        "num_steps",
    ),
    "settings group": (setting("inference_defaults", "shell", to={}), "shell"),
    "no coordinates": (without("latitudes"), "latitudes"),
    "fewer coordinates": (lambda d, t: t.update(longitudes=t["longitudes"][:-1].clone()), "one length"),
    "fewer weights": (without("output.weight"), "output.weight"),
    "more weights": (lambda d, t: t.update(extra=torch.ones(1)), "extra"),
    "weights of another shape": (lambda d, t: t.update({"output.bias": torch.ones(7)}), "output.bias"),
    "weights that are no numbers": (lambda d, t: t["output.bias"][:1].fill_(torch.nan), "output.bias"),
}


@pytest.mark.parametrize(("edit", "message"), TAMPERED.values(), ids=TAMPERED.keys())
def test_tampered_checkpoints_are_refused(checkpoint, tmp_path, edit, message):
    tensors, document = contents(checkpoint)
    edit(document, tensors)
    path = tmp_path / "tampered.safetensors"
    save_file(tensors, path, {"diffusion_lab": json.dumps(document)})
    with pytest.raises(ValueError, match=r"tampered.safetensors") as error:
        load_forecaster(path)
    assert message in str(error.value)
    assert len(str(error.value)) < 1500  # fits a screen


@pytest.mark.parametrize("document", ["", "{", "[1, 2]", "null", '"text"', "{}"])
def test_a_damaged_document_is_refused(checkpoint, tmp_path, document):
    save_file(contents(checkpoint)[0], tmp_path / "r.safetensors", {"diffusion_lab": document})
    with pytest.raises(ValueError, match=r"r.safetensors.* the document in the checkpoint is damaged"):
        load_release(tmp_path / "r.safetensors")


def test_an_untouched_copy_is_accepted(checkpoint, tmp_path):
    """What the tests above change is the reason they are refused."""
    tensors, document = contents(checkpoint)
    save_file(tensors, tmp_path / "r.safetensors", {"diffusion_lab": json.dumps(document)})
    load_forecaster(tmp_path / "r.safetensors", "cpu")
