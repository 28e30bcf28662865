"""The endpunkt command, with the verbs of az ml."""
