"""How this invocation reaches Endpunkt: options, then the environment, then the installation in var/endpunkt."""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from endpunkt_cli.client import Origin, Studio
from endpunkt_cli.errors import CliError

DEFAULT_URL = "https://localhost:8444"


@dataclass
class Session:
    """Set by the options that stand before the command."""

    url: str = DEFAULT_URL
    home: Path = Path("var/endpunkt")
    _studio: Studio | None = field(default=None, init=False)

    @property
    def studio(self) -> Studio:
        """The management API, with the token in ENDPUNKT_TOKEN or <home>/secrets/admin-token."""
        if self._studio is None:
            self._studio = self._connected()
        return self._studio

    def _connected(self) -> Studio:
        token, source = os.environ.get("ENDPUNKT_TOKEN"), "ENDPUNKT_TOKEN"
        if not token:
            path = self.home / "secrets" / "admin-token"
            source = str(path)
            try:
                token = path.read_text().strip()
            except OSError as error:
                raise CliError(
                    f"cannot read the management token {path}: {error.strerror}. Start Endpunkt (make up), "
                    "or set ENDPUNKT_HOME to the home of the running one, or ENDPUNKT_TOKEN."
                ) from None
        return Studio(self.origin(self.url), token, source)

    def origin(self, url: str, timeout: float = 75) -> Origin:
        """A connection to `url` that trusts the authority in ENDPUNKT_CA or <home>/tls/ca.pem, and no other."""
        ca = Path(os.environ.get("ENDPUNKT_CA") or self.home / "tls" / "ca.pem")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(ca)
        except ssl.SSLError:
            raise CliError(f"{ca} holds no certificate authority in PEM: set ENDPUNKT_CA to the right file") from None
        except OSError as error:
            raise CliError(
                f"cannot read the certificate authority {ca}: {error.strerror}. Start Endpunkt (make up), "
                "or set ENDPUNKT_HOME to the home of the running one, or ENDPUNKT_CA to its tls/ca.pem."
            ) from None
        return Origin(url, context, ca, timeout)


session = Session()
