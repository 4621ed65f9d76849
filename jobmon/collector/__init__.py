"""Follows the changes of the watched jobs, and writes their statistics and history."""
