"""Numbers that compare two arrays, their limits, and statistics of paired results."""
