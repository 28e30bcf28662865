"""Commands to validated desired state to running instances."""
