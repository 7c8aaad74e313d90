"""Making files durable: fsync, and replacing several files at once."""
