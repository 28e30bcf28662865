"""Kafka, topics and the processes of a whole Endpunkt."""
