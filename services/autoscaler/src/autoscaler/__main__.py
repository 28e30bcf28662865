"""Settings and wiring of the autoscaler: python -m autoscaler."""

from autoscaler.app import SERVICE, Autoscaler, AutoscalerSettings
from contracts.shell.service import serve

if __name__ == "__main__":
    serve(SERVICE, AutoscalerSettings, Autoscaler)
