"""The proxies that `bench/router.py` compares, each configured for the same endpoint."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).with_name("peers") / "router"
HOST = "diabetes.local.inference.localhost"
TYPE = "type.googleapis.com/envoy.extensions"


@dataclass(frozen=True)
class House:
    """What all proxies are given: their core, the load's, a folder, the key and chain, and the instances' ports."""

    core: int
    load_core: int
    folder: Path
    pem: Path
    blue: int
    green: int


def envoy(house: House, port: int, scheme: str, envoy: Path) -> list[str]:
    """The command of an Envoy with that configuration."""

    def cluster(name: str, instance: int) -> dict[str, Any]:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": instance}}
        return {
            "name": name,
            "type": "STATIC",
            "lb_policy": "LEAST_REQUEST",
            "circuit_breakers": {"thresholds": [{"max_requests": 10_000, "max_connections": 10_000}]},
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }

    def header(name: str, value: str) -> dict[str, Any]:
        return {"name": name, "string_match": {"exact": value}}

    key = header("authorization", "Bearer the-primary-key")
    told = {"header": {"key": "azureml-model-deployment", "value": "%UPSTREAM_CLUSTER%"}}
    request_id = {"header": {"key": "x-request-id", "value": "%REQ(X-REQUEST-ID)%"}}
    passed = {"request_headers_to_remove": ["authorization"], "response_headers_to_add": [told, request_id]}
    split = {"clusters": [{"name": "blue", "weight": 90}, {"name": "green", "weight": 10}]}
    routes = [
        {
            "match": {"prefix": "/", "headers": [key, header("azureml-model-deployment", name)]},
            "route": {"cluster": name, "timeout": "5s"},
            **passed,
        }
        for name in ("blue", "green")
    ]
    routes.append(
        {
            "match": {"prefix": "/", "headers": [key]},
            "route": {"weighted_clusters": split, "timeout": "5s"},
            **passed,
        }
    )
    refused = {"status": 401, "body": {"inline_string": "no key"}}
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "scoring",
        "codec_type": "HTTP1",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "diabetes",
                    "domains": [HOST],
                    "routes": [*routes, {"match": {"prefix": "/"}, "direct_response": refused}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"},
            }
        ],
    }
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if scheme == "tls":
        pem = {"filename": str(house.pem)}
        chain["transport_socket"] = {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
                "common_tls_context": {"tls_certificates": [{"certificate_chain": pem, "private_key": pem}]},
            },
        }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [chain],
    }
    clusters = [cluster("blue", house.blue), cluster("green", house.green)]
    config = house.folder / "envoy.json"
    config.write_text(json.dumps({"static_resources": {"listeners": [listener], "clusters": clusters}}))
    return [str(envoy), "-c", str(config), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]


def nginx(house: House, port: int, scheme: str) -> list[str]:
    """The command of an nginx with that configuration. It counts by its access log, as it has no other way."""
    listen = "ssl" if scheme == "tls" else ""
    config = house.folder / "nginx.conf"
    config.write_text(
        f"""
        worker_processes 1; daemon off; pid {house.folder}/nginx.pid; error_log {house.folder}/nginx.log;
        events {{ worker_connections 4096; }}
        http {{
          access_log {house.folder}/access.log combined buffer=64k;
          client_max_body_size 100m;
          client_body_temp_path {house.folder}/bodies; proxy_temp_path {house.folder}/answers;
          client_body_buffer_size 2m; keepalive_requests 1000000000;
          split_clients $request_id $share {{ 90% blue; * green; }}
          map $http_azureml_model_deployment $deployment {{ blue blue; green green; default $share; }}
          map $http_authorization $known {{ "Bearer the-primary-key" 1; default 0; }}
          upstream blue {{ server 127.0.0.1:{house.blue}; keepalive 64; }}
          upstream green {{ server 127.0.0.1:{house.green}; keepalive 64; }}
          server {{
            listen 127.0.0.1:{port} {listen}; server_name {HOST};
            ssl_certificate {house.pem}; ssl_certificate_key {house.pem};
            location / {{
              if ($known = 0) {{ return 401; }}
              proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Authorization "";
              proxy_set_header x-request-id $request_id; add_header x-request-id $request_id;
              add_header azureml-model-deployment $deployment; proxy_pass http://$deployment;
            }}
          }}
        }}"""
    )
    return ["nginx", "-c", str(config)]


def ours(house: House, port: int, scheme: str, endpoints: int = 1) -> list[str]:
    """The command of the router's data plane."""
    given = (port, scheme, house.pem, endpoints, house.blue, house.green)
    return [sys.executable, str(HERE / "ours.py"), *map(str, given)]
