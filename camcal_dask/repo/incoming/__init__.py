"""From FITS files and photodiode readings into a repository."""
