"""moto's S3 server with an empty bucket, with latency in front, in a process of its own.

Run by :mod:`vmcmc_dist.bench.store`. What is put there stays in memory.
"""

from __future__ import annotations

import logging
import sys

import boto3
from moto.server import ThreadedMotoServer

from vmcmc_dist.bench.fault_proxy import FaultProxy


def serve(bucket: str, latency_s: float) -> None:
    """Serve until stdin ends; the first line of stdout is the URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request otherwise
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="bench",
        aws_secret_access_key="bench",
    ).create_bucket(Bucket=bucket)
    with FaultProxy(url, latency_s=latency_s) as proxy:
        print(proxy.url, flush=True)
        sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]))
