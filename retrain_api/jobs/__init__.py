"""Jobs from their upload to their end: stored, scheduled, leased to workers."""
