"""Raw FITS files in: header translation and pixel reading."""
