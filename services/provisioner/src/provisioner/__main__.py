"""python -m provisioner: settings and wiring."""

from contracts.shell.service import serve
from provisioner.app import SERVICE, Provisioner
from provisioner.settings import ProvisionerSettings

if __name__ == "__main__":
    serve(SERVICE, ProvisionerSettings, Provisioner)
