"""Statistics and history: the stored documents, and how the web service reads them."""
