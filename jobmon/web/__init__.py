"""What the JSON routes and the pages share: who asks, what they may, and how much at a time."""
