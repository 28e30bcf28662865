"""HTTPS scoring: authentication, exact splits, retries, usage."""
