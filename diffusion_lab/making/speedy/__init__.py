"""The example atmosphere: simulated with SPEEDY, brought to pressure levels, rounded, written as a store."""
