"""Artifacts: named files of an owner, and the deduplicated blobs behind them."""
