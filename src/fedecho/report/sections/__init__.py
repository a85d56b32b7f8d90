"""The sections of the page: each takes a group of runs and gives figures and tables."""
