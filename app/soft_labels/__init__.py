"""Soft labels: shards of what teachers say, each made once for its owner, lent to the jobs that want it."""
