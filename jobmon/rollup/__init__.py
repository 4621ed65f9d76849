"""Statistics and history: the documents that are stored, and how the web service reads them."""
