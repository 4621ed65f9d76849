"""The JSON routes: everything of them that knows Flask."""
