"""A run's folder: everything a run found out, in files that need no server and no pickle."""
