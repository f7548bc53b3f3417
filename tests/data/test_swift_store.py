"""The OpenStack Swift of the tests: it outlives no test run, and is strict where moto is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([*sys.argv[1:], str(os.getpid())], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_it_ends_when_the_test_run_is_killed(swift_python: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("swift_store.py")
    words = [swift_python, "-W", "ignore", script, tmp_path / "store"]
    command = [sys.executable, "-c", PARENT, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        latest = time.monotonic() + 30
        while not (tmp_path / "store" / "port").exists():
            assert time.monotonic() < latest, "the store did not start"
            time.sleep(0.05)
        os.kill(child, 0)
        parent.send_signal(signal.SIGKILL)
    while (status := Path(f"/proc/{child}/stat")).exists():
        if status.read_text().rpartition(")")[2].split()[0] == "Z":
            break  # ended; its new parent has not asked for it yet
        assert time.monotonic() < latest, "the store goes on without the test run"
        time.sleep(0.1)


@pytest.mark.stores("moto", "swift")
def test_a_read_pinned_to_a_version_is_refused_after_an_overwrite(s3) -> None:
    first = s3.put_object(Bucket="faces", Key="a.tar", Body=b"0123456789")["ETag"]
    pinned = {"Bucket": "faces", "Key": "a.tar", "IfMatch": first}
    assert s3.get_object(**pinned, Range="bytes=2-4")["Body"].read() == b"234"
    s3.put_object(Bucket="faces", Key="a.tar", Body=b"9876543210")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        s3.get_object(**pinned, Range="bytes=2-4")


@pytest.mark.stores("moto", "swift")
def test_an_object_of_many_parts_has_one_version_everywhere(s3) -> None:
    parts = [bytes(5 << 20), b"the end"]
    place = {"Bucket": "faces", "Key": "a.tar"}
    place["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
    tags = [
        {"PartNumber": n, "ETag": s3.upload_part(**place, PartNumber=n, Body=part)["ETag"]}
        for n, part in enumerate(parts, 1)
    ]
    version = s3.complete_multipart_upload(**place, MultipartUpload={"Parts": tags})["ETag"]
    assert version.endswith('-2"')
    assert s3.head_object(Bucket="faces", Key="a.tar")["ETag"] == version
    assert [x["ETag"] for x in s3.list_objects_v2(Bucket="faces")["Contents"]] == [version]
    across = f"bytes={(5 << 20) - 2}-{(5 << 20) + 2}"
    got = s3.get_object(Bucket="faces", Key="a.tar", Range=across, IfMatch=version)
    assert got["Body"].read() == b"\0\0the"
