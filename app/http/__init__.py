"""What every endpoint shares: problems, access, guards, bodies, downloads, numbers."""
