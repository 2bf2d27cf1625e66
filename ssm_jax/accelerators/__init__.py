"""Programs for accelerators, compiled ahead of time where there is none, and what they will do."""
