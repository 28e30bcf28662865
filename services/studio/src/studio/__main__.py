"""Runs studio: python -m studio."""

from contracts.shell.service import serve
from studio.app import Studio
from studio.settings import StudioSettings

if __name__ == "__main__":
    serve("studio", StudioSettings, Studio)
