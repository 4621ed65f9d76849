"""Answers for people in a terminal and for assistants, all from the documented JSON API."""
