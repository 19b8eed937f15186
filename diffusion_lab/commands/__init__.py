"""The commands of `diffusion-lab`: words become one typed request, the request becomes a call."""
