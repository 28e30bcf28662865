"""Load samples and rules to explained scale decisions."""
