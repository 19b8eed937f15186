"""`python -m diffusion_lab` is `diffusion-lab`."""

import sys

from diffusion_lab.commands.cli import main

sys.exit(main())
