"""Batch jobs to mini-batches to committed outputs."""
