"""Follows the changes of the watched jobs, and writes statistics and history of them."""
