"""Ports that are free now, for an Endpunkt that runs beside another one."""

from endpunkt_infra.kafka.ports import free_port


def free_ports() -> dict[str, str]:
    """Settings that put router and studio on free ports, and tell where scoring and the identities' keys are."""
    router = free_port()
    studio = free_port(besides=router)
    return {
        "ENDPUNKT_ROUTER_PORT": str(router),
        "ENDPUNKT_STUDIO_PORT": str(studio),
        "ENDPUNKT_SCORING_URL": f"https://localhost:{router}",
        "ENDPUNKT_IDENTITY_ISSUER": f"https://127.0.0.1:{studio}/identity",
    }
