"""The pages for people: what the JSON routes tell, to look at in a browser."""
