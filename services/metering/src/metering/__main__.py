"""Settings and wiring of the metering service: python -m metering."""

from contracts.log import KafkaSettings
from contracts.shell.service import serve
from metering.app import SERVICE, Metering, MeteringSettings


def build(settings: MeteringSettings, kafka: KafkaSettings) -> Metering:
    """The service as `settings` want it."""
    return Metering(kafka, settings.catalog)


if __name__ == "__main__":
    serve(SERVICE, MeteringSettings, build)
