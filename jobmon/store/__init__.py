"""Reads the watched collections, and the list of paused types; it writes nothing."""
