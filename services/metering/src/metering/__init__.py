"""Usage to cost per endpoint and deployment."""
