"""Jobs: the database row is the job."""
