"""`SamplerTuner`: move a sampler's settings and see what they do to a trained forecaster.

tuner = SamplerTuner("example-tendency")         # the last line of a cell shows it
tuner.set(sigma_max=90, S_churn=2.5)
tuner.run()                                      # the same object without a browser
tuner.result, tuner.scores, tuner.figure()
"""

from diffusion_lab.widgets.tuner.tuner import SamplerTuner

__all__ = ["SamplerTuner"]
