"""Shared by the JSON routes and the pages: authentication, limits, errors and the request log."""
