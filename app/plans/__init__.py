"""Plans: what a job would do and take, or what would fail it. Their rows are those of jobs, of kind `plan`."""
