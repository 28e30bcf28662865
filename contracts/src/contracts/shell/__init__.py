"""What every service's process shares besides the bus: settings, logs, health, secrets, certificates."""
