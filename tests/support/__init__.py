"""What several test modules share: small federations, runs and their records, trainers for executors, a browser."""
