"""The management API: publishes commands, reads tables."""
