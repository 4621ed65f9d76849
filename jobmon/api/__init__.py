"""The JSON API: its routes, parameters, answers and OpenAPI document."""
