"""Figures that cost what changes, not what is stored."""
