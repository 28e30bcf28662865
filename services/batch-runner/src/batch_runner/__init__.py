"""Batch jobs to mini-batches to committed outputs, on compute that exists as long as the job.

| module | decides |
|---|---|
| `lifecycle` | which status follows which event, and what a job does next (pure) |
| `ledger` | what a job's document is after a command or a report (pure) |
| `plan` | whether a job can run, its settings, and its mini-batches (pure) |
| `judge` | what an attempt's end means for its mini-batch and for the job (pure) |
| `room` | which jobs may start workers now (pure) |
| `inputs` | which files an input is |
| `folder` | how a job lies on disk: plan, segments, output, logs |
| `preparation` | what a job's workers need on this machine: files, environment, runtime |
| `worker` | one process that runs the user's script |
| `scoring` | mini-batches on the job's own instances |
| `job` | one job, step by step |
| `app` | all jobs of the partitions that this process holds |
"""
