"""Reads the watched collections, and nothing else."""
