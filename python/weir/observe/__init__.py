"""What is measured and reported: statistics of stores, the audit log, metrics."""
