"""Classes and functions of the user: which they are, how they run, and what they need."""
