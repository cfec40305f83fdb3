"""Does the score that a search sees rank plans as recovery will? Measured, task by task."""
