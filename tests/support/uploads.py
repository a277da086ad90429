"""Uploads that a test can watch: by curl, or one that begins and does not end."""

import json
import socket
import subprocess

from tests.support.api import Api, csv_text


def curl(api: Api, *arguments: str) -> dict:
    """Post with the real curl; return its JSON, with the HTTP code in `code`."""
    command = ["curl", "-sS", "--noproxy", "*", "-w", "%{stderr}%{http_code}", *arguments]
    done = subprocess.run(
        [*command, f"{api.url}/jobs"], capture_output=True, text=True, timeout=120, check=True
    )
    return json.loads(done.stdout) | {"code": int(done.stderr)}


def start_upload(api: Api) -> socket.socket:
    """Send the first part of an upload."""
    host, port = api.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)))
    head = b'--b\r\nContent-Disposition: form-data; name="data"; filename="a.csv"\r\n\r\n'
    client.sendall(
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 90000000\r\n\r\n" + head + csv_text(rows=50000).encode()
    )
    return client
