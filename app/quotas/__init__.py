"""Quotas of an owner: stored bytes, queued jobs, running jobs. Counted in the database, exact under concurrency."""
