"""Actions on jobs: what a person requests, and the records of it. The actor carries them out."""
