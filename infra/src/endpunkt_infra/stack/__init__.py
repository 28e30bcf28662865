"""A whole Endpunkt on one machine: Kafka and every service, as separate processes."""
