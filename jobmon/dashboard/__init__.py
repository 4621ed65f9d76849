"""The pages: what the JSON routes return, to read in a browser."""
