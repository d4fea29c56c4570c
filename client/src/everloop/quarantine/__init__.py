"""The quarantine: what stands in it, what was decided, and how records go back or are put away."""
