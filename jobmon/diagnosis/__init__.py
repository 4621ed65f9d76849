"""What follows from a queue's figures: what needs attention, and what could not be checked."""
