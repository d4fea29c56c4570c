"""The stream task, and how it is opened."""
