"""Who instances are, and what they are trusted with: tokens of the endpoint's identity, and secrets by reference."""
