"""Jobs that take their time."""
