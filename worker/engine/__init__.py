"""The algorithm: torch, the contract and the model families; no queue, database, HTTP or store."""
