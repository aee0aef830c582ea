"""A cluster that Caliber starts on this machine can be reached from this machine alone, and with a token."""

from __future__ import annotations

import psutil
import pytest
import ray
import urllib3

pytestmark = pytest.mark.integration


def test_the_dashboard_listens_on_loopback_and_takes_no_job_without_a_token(own_ray: None) -> None:
    host, port = ray.init(ignore_reinit_error=True).dashboard_url.split(":")
    listening = [
        connection.laddr.ip
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == int(port)
    ]

    answer = urllib3.request("POST", f"http://{host}:{port}/api/jobs/", json={"entrypoint": "true"}, retries=False)

    assert listening == ["127.0.0.1"]
    assert answer.status == 401
