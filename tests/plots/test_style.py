import matplotlib as mpl
import matplotlib.style

from diffusion_lab.plots.style import LINES


def test_the_notebooks_draw_in_the_colours_of_the_library():
    with matplotlib.style.context("diffusion_lab.plots.notebook"):
        colours = [entry["color"].upper() for entry in mpl.rcParams["axes.prop_cycle"]]
    assert colours == list(LINES)
