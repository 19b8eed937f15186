"""Making stores: recipes, sources (netCDF, zarr, GRIB) and the writer."""

from diffusion_lab.making.metadata import StoreMetadata, Variable
from diffusion_lab.making.writer import StoreWriter, create_store

__all__ = ["StoreMetadata", "StoreWriter", "Variable", "create_store"]
