"""Hides secrets in what jobs hold: by the names of keys, and by their form in any text."""
