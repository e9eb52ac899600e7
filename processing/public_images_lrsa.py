"""Opens pictures that strangers send or name: nothing that only this machine can reach is reached for them."""

import base64
import binascii
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from contextlib import suppress
from io import BytesIO
from typing import Any
from urllib.parse import urljoin, urlsplit

from .images_lrsa import open_image


MAX_BYTES = 10 * 2**20
MAX_PIXELS = 25_000_000
MAX_SECONDS = 10.0  # for a download, redirects included
MAX_REDIRECTS = 3
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")  # Pillow has readers that start other programs

# Addresses that count as global and yet answer inside of clouds: of Oracle (in a block of the IETF), and of Azure.
INSIDE = [ipaddress.ip_network(network) for network in ("192.0.0.0/24", "168.63.129.16/32")]
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


def open_public_image(image: Any):
    """Opens a picture for a stranger, as RGB, turned as its camera was held.

    Args:
        image: its bytes, as such, as base64 or as a `data:` URL, an `https://` URL of a server on the public Internet,
            or a PIL image. A string is never taken for the name of a file.

    Raises:
        ValueError: it can't be read; it has more than 10 MB, 25 million pixels, 10,000 pixels on a side or 10 seconds;
            or its URL is not `https`, or leads, by itself, by DNS or by a redirect, to an address that is not public.
    """
    if isinstance(image, str):
        image = _download(image) if re.match(r"(?!data:)[\w+.-]+:", image.strip()) else _decode(image)
    if not isinstance(image, bytes):
        return open_image(image) if hasattr(image, "convert") else _refuse("give base64, a data URL or an https URL")
    if len(image) > MAX_BYTES:
        _refuse(f"it has more than {MAX_BYTES / 2**20:.0f} MB")
    try:
        from PIL import Image  # in here, so that loading a model of text alone does not ask for it

        opened = Image.open(BytesIO(image), formats=FORMATS)  # reads the size, no pixel
    except Exception as error:
        if type(error).__name__ == "DecompressionBombError":
            _refuse(f"it has more than {MAX_PIXELS:,} pixels")
        raise ValueError(f"picture: it is none of {', '.join(FORMATS)}, or broken") from error
    if opened.width * opened.height > MAX_PIXELS:
        _refuse(f"it has {opened.width} × {opened.height} pixels, more than {MAX_PIXELS:,}")
    return open_image(opened)


def _refuse(reason: str):
    raise ValueError(f"picture: {reason}")


def _decode(text: str) -> bytes:
    text = text.strip()
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            _refuse("a data URL must be in base64 (data:image/png;base64,...)")
    if len(text) > MAX_BYTES * 4 / 3 * 1.03:  # with line breaks
        _refuse(f"it has more than {MAX_BYTES / 2**20:.0f} MB")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("picture: it is neither base64, nor a data URL, nor an https URL") from error


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public Internet, for one host, and not one inside of this network."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.version == 6 and (ip not in GLOBAL_UNICAST or ip.sixtofour or ip.teredo):
        return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in INSIDE)


def _public_addresses(host: str) -> list[str]:
    try:
        addresses = [found[4][0] for found in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"picture: there is no host {host[:100]!r}") from error
    if not all(map(is_public, addresses)):
        _refuse(f"{host[:100]!r} is not on the public Internet")
    return addresses


class _Connection(http.client.HTTPSConnection):
    """To an address that was looked at: the name is not resolved again, so it can't lead elsewhere meanwhile."""

    def __init__(self, host: str, address: str, timeout: float):
        super().__init__(host, 443, timeout=timeout, context=ssl.create_default_context())
        self.address = address
        self.held = None  # the socket, which `HTTPConnection` lets go of where the server is to close it

    def connect(self):
        self.held = self.sock = socket.create_connection((self.address, self.port), self.timeout)
        self.held = self.sock = self._context.wrap_socket(self.sock, server_hostname=self.host)

    def cut(self):
        """Wakes whoever waits for the server, however slowly it keeps on sending."""
        with suppress(TypeError, OSError):  # not there yet, where the timeout counts, or gone
            socket.socket.shutdown(self.held, socket.SHUT_RDWR)


def _download(url: str) -> bytes:
    deadline = time.monotonic() + MAX_SECONDS
    for _ in range(MAX_REDIRECTS + 1):
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError("picture: its URL is none") from error
        if parts.scheme != "https" or not host or port not in (None, 443) or parts.username is not None:
            _refuse(f"only https:// URLs without port and password are fetched, not {parts.scheme[:20]}://")
        connection = _Connection(host, _public_addresses(host)[0], max(0.1, deadline - time.monotonic()))
        alarm = threading.Timer(max(0.0, deadline - time.monotonic()), connection.cut)
        alarm.start()
        try:
            answer = _get(connection, parts)
            if time.monotonic() >= deadline:
                raise TimeoutError
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() >= deadline:
                _refuse(f"{host[:100]} did not send it within {MAX_SECONDS:.0f} seconds")
            if isinstance(error, ValueError) and str(error).startswith("picture: "):
                raise
            raise ValueError(f"picture: {host[:100]} did not send it ({type(error).__name__})") from error
        finally:
            alarm.cancel()
            connection.close()
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    _refuse(f"its URL leads on more than {MAX_REDIRECTS} times")


def _get(connection: _Connection, parts) -> bytes | str:
    """Returns the body, or where a redirect leads to."""
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", path, headers={"Accept": "image/*", "User-Agent": "lrsa"})
    response = connection.getresponse()
    if response.status in (301, 302, 303, 307, 308) and (target := response.getheader("Location")):
        return target
    if response.status != 200:
        _refuse(f"{connection.host[:100]} answers {response.status}")
    body = response.read(MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        _refuse(f"it has more than {MAX_BYTES / 2**20:.0f} MB")
    if response.length:
        raise http.client.IncompleteRead(body, response.length)
    return body
