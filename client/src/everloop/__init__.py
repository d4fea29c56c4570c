"""The Everloop command, its Python client and the embedded stack."""
