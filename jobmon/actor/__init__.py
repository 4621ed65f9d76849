"""Carries out requests for actions, as `jobmon actor`: the web service only files them."""
