"""A config's layers become a program of ops over flat vectors, and a machine runs it."""
