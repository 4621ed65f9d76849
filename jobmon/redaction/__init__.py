"""Hides secrets in jobs: values of secret keys, and texts with the form of a secret."""
