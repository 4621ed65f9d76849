"""Conclusions from a queue's stats and history: what needs attention, what could not be checked."""
