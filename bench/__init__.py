"""Measurements of hgfleet with plain Mercurial beside it, always as ratios of one run: `python -m bench`."""
