"""Which pipeline versions are computed."""
