"""Everything that talks to MongoDB to read the watched collections."""
