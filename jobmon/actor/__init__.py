"""Carries out requests for actions: the only part of jobmon that writes watched collections."""
