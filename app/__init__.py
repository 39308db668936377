"""The API: all that runs without torch."""
