"""Many runs: comparing methods, tuning settings, statistics, tables."""
