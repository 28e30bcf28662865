"""The messages, topics and log that Endpunkt's services share."""
