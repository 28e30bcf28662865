"""The main job as a story: real models behind a 90/10 split on a real Kafka; scaled, killed, batch-scored, paid for."""
