"""What is set before Flower, Ray or torch load, here and in every worker: nothing calls out, one thread a cell."""

SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

CLOSED_PROXY = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
"""Set for a Ray of our own: it asks the cloud's metadata service (169.254.169.254) where it runs, whatever
RAY_USAGE_STATS_ENABLED says. Nothing listens at this proxy, so such a question never leaves the machine; Ray's own
connections (gRPC) take no proxy."""
