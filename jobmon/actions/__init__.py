"""Requests for actions on jobs, mutes of notices, and the records of both."""
