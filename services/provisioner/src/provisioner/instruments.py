"""The provisioner's own metrics, on /metrics."""

from prometheus_client import Counter, Gauge

COMMANDS = Counter("endpunkt_commands", "Commands that were handled, by outcome", ["outcome"])
INSTANCES = Gauge("endpunkt_instances", "Instances of deployments, by phase", ["phase"])
DEATHS = Counter("endpunkt_instance_deaths", "Instances that ended without being asked to, or never became ready")
