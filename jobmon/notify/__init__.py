"""Sends the notices of a queue to people: by signed webhooks, and by the services of Apprise."""
