"""OpenStack Swift with its S3 door, whole, in one process on the loopback device.

Run by the Python of `.venv-swift` (`make stores`), as `swift_store.py FOLDER PARENT`: the proxy
and the account, container and object servers of Swift, one device and one replica in FOLDER,
user `test:key` with the secret `very-secret`. Once it answers, FOLDER/port holds the port of the
proxy. It ends when its PARENT does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import eventlet
import eventlet.wsgi
from swift.common import utils, wsgi
from swift.common.http_protocol import SwiftHttpProtocol
from swift.common.ring import RingBuilder

HOST = "127.0.0.1"
COMMON = """[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
fallocate_reserve = 0
disable_fallocate = true
log_level = WARNING
log_custom_handlers = swift_store.log_to_stderr
bind_ip = 127.0.0.1
bind_port = 0
conn_timeout = 10
node_timeout = 60
container_update_timeout = 60
"""
PROXY = """
[pipeline:main]
pipeline = catch_errors s3api tempauth bulk slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
recheck_account_existence = 0
recheck_container_existence = 0
object_chunk_size = 524288
client_chunk_size = 524288
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_key = very-secret .admin
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
SERVER = """
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""


def log_to_stderr(conf, name, to_console, route, form, logger, adapted) -> None:
    """Swift's hook for its loggers: to stderr (a file of the tests) in place of syslog."""
    import logging

    logger.handlers = [logging.StreamHandler(sys.__stderr__)]


def write_settings(folder: Path, ports: dict[str, int]) -> None:
    """Swift's configuration and rings: one device, one replica."""
    (folder / "devices" / "disk").mkdir(parents=True)
    (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tests\n")
    (folder / "proxy.conf").write_text(COMMON.format(folder=folder) + PROXY)
    for kind, port in ports.items():
        text = COMMON.format(folder=folder) + SERVER.format(kind=kind)
        (folder / f"{kind}.conf").write_text(text)
        ring = RingBuilder(part_power=4, replicas=1, min_part_hours=0)
        device = {"region": 1, "zone": 1, "ip": HOST, "port": port, "device": "disk", "weight": 1}
        ring.add_dev(device)
        ring.rebalance(seed=0)
        ring.get_ring().save(str(folder / f"{kind}.ring.gz"))


def serve(kind: str, folder: Path, sock) -> eventlet.greenthread.GreenThread:
    """One of Swift's servers on ``sock``, as swift.common.wsgi.run_server would run it."""
    app, conf, *_ = wsgi.init_request_processor(str(folder / f"{kind}.conf"), f"{kind}-server")
    return eventlet.spawn(
        eventlet.wsgi.server,
        sock,
        app,
        utils.NullLogger(),
        protocol=SwiftHttpProtocol,
        capitalize_response_headers=False,  # S3 clients look for ETag
    )


def main(folder: Path, parent: int) -> None:
    eventlet.hubs.use_hub(utils.get_hub())
    utils.monkey_patch()
    sys.path.insert(0, str(Path(__file__).parent))  # for log_custom_handlers
    kinds = ("account", "container", "object")
    sockets = {kind: eventlet.listen((HOST, 0), backlog=128) for kind in (*kinds, "proxy")}
    ports = {kind: sockets[kind].getsockname()[1] for kind in sockets}
    write_settings(folder, {kind: ports[kind] for kind in kinds})
    utils.set_swift_dir(str(folder))
    servers = [serve(kind, folder, sock) for kind, sock in sockets.items()]
    (folder / "port.partial").write_text(str(ports["proxy"]))
    (folder / "port.partial").rename(folder / "port")
    while os.getppid() == parent and not any(server.dead for server in servers):
        eventlet.sleep(0.5)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
