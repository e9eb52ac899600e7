"""Pictures that strangers send or name."""

import base64
import ipaddress
import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from processing import public_images_lrsa
from processing.public_images_lrsa import is_public, open_public_image


PUBLIC = "93.184.216.34"
NOT_PUBLIC = (
    "0.0.0.0 10.0.0.1 100.64.0.1 100.100.100.200 127.0.0.1 127.9.9.9 168.63.129.16 169.254.169.254 172.16.0.1 "
    "192.0.0.192 192.168.1.1 198.18.0.1 224.0.0.1 239.255.255.250 255.255.255.255 :: ::1 ::ffff:127.0.0.1 "
    "::ffff:169.254.169.254 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::a00:1 2001:0:1::1 2002:7f00:1:: fc00::1 "
    "fd00:ec2::254 fe80::1 fe80::1%eth0 fec0::1 ff02::1"
).split()


def encoded(form: str = "PNG", size=(20, 10)) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, (200, 30, 40)).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_inside(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", [PUBLIC, "1.1.1.1", "::ffff:1.1.1.1", "2606:4700:4700::1111"])
def test_public_addresses(address):
    assert is_public(address)


@given(st.ip_addresses(v=4))
def test_no_address_inside_is_public_in_any_writing(ip):
    inside = ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_reserved
    for address in (str(ip), f"::ffff:{ip}", str(ipaddress.IPv6Address(f"::ffff:{ip}"))):
        assert not (inside and is_public(address))
        assert is_public(address) == is_public(str(ip))
    assert not is_public(str(ipaddress.IPv6Address((0x2002 << 112) | (int(ip) << 80))))
    assert not is_public(f"64:ff9b::{ip}")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP"])
def test_bytes_base64_and_data_urls(form):
    data = encoded(form)
    text = base64.b64encode(data).decode()
    lines = base64.encodebytes(data).decode()
    for image in (data, text, lines, f"data:image/{form.lower()};base64,{text}", Image.open(BytesIO(data))):
        opened = open_public_image(image)
        assert (opened.mode, opened.size) == ("RGB", (20, 10))
        assert all(abs(a - b) < 4 for a, b in zip(opened.getpixel((5, 5)), (200, 30, 40)))


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (__file__, "neither base64, nor a data URL, nor an https URL"),
        ("", "none of JPEG"),
        (f"file://{__file__}", "only https://"),
        (f"FILE:{__file__}", "only https://"),
        ("ftp://example.org/a.png", "only https://"),
        ("gopher://example.org/", "only https://"),
        ("http://example.org/a.png", "only https://"),
        ("https://example.org:8443/a.png", "only https://"),
        ("https://user:secret@example.org/a.png", "only https://"),
        ("https:///a.png", "only https://"),
        ("https://[::1", "its URL is none"),
        ("https://example.org:99999/", "its URL is none"),
        ("data:image/png,abc", "must be in base64"),
        ("data:text/plain;base64,YWJj", "none of JPEG"),
        (b"", "none of JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of JPEG"),
        (encoded("TIFF"), "none of JPEG"),
        (encoded()[:-30], "can't be read"),
        (encoded(size=(4, 4)), "4 × 4 pixels"),
        (bytes(10 * 2**20 + 1), "more than 10 MB"),
        (encoded(size=(6000, 5000)), "6000 × 5000 pixels, more than 25,000,000"),
        (17, "give base64"),
        ({"path": __file__}, "give base64"),
    ],
    ids=range(23),
)
def test_what_is_refused(image, told):
    with pytest.raises(ValueError, match=told.replace("(", r"\(")) as refused:
        open_public_image(image)
    assert "secret" not in str(refused.value) and __file__ not in str(refused.value)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1", "[::1]", "[::ffff:7f00:1]", "localhost"]
)
def test_hosts_inside_in_any_writing(host):
    with pytest.raises(ValueError, match="not on the public Internet|there is no host"):
        open_public_image(f"https://{host}/a.png")


class Pictures(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    picture = encoded("JPEG")

    def do_GET(self):
        self.server.asked.append((self.headers["Host"], self.path))
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send(302, b"", Location=f"https://{rest}" if "." in rest or ":" in rest else rest)
        elif kind == "loop":
            self.send(301, b"", Location="/loop")
        elif kind == "status":
            self.send(int(rest), b"no")
        elif kind == "large":
            self.send(200, bytes(10 * 2**20 + 9))
        elif kind == "endless":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(bytes(2**16))
        elif kind == "slow":
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for index in range(100):  # a header, or a byte, now and then: no single wait is long
                self.wfile.write(f"X-{index}: 1\r\n".encode() if rest == "head" else b"\r\n" if index == 0 else b"a")
                time.sleep(0.1)
        elif kind == "short":
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.picture)))
            self.end_headers()
            self.wfile.write(self.picture[:-100])
            self.close_connection = True
        else:
            self.send(200, self.picture)

    def send(self, status, body, **headers):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A real HTTPS server on loopback, with a certificate for pictures.test and other.test."""
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=DNS:pictures.test,DNS:other.test"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=pictures.test"
    try:
        files = ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem", "-addext", names]
        subprocess.run([*command.split(), *files], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    server.daemon_threads, server.asked, server.folder = True, [], folder
    server.handle_error = lambda *_: None  # clients that hang up
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def internet(server, monkeypatch):
    """Names and addresses of an Internet in which that server is public; gives what was connected to."""
    names = {"pictures.test": [PUBLIC], "other.test": [PUBLIC], "unknown.test": [PUBLIC]}
    names |= {"inside.test": ["10.0.0.7"], "both.test": [PUBLIC, "127.0.0.1"], "metadata.test": ["169.254.169.254"]}
    connected, connect, resolve = [], socket.create_connection, socket.getaddrinfo

    def resolved(host, port, *args, **kwargs):
        if host in names:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in names[host]]
        return resolve(host, port, *args, **kwargs)

    def connection(address, timeout):
        connected.append(address)
        return connect(("127.0.0.1", server.server_port), timeout)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    monkeypatch.setattr(public_images_lrsa.socket, "create_connection", connection)
    monkeypatch.setenv("SSL_CERT_FILE", str(server.folder / "certificate.pem"))
    server.asked.clear()
    return connected


def test_a_picture_of_a_public_server(server, internet):
    assert open_public_image(" https://pictures.test/a.jpg?size=2#top ").size == (20, 10)
    assert internet == [(PUBLIC, 443)]
    assert server.asked == [("pictures.test", "/a.jpg?size=2")]


def test_redirects_are_followed(server, internet):
    assert open_public_image("https://pictures.test/to/other.test/to//a").size == (20, 10)
    assert [host for host, _ in server.asked] == ["pictures.test", "other.test", "other.test"]


@pytest.mark.parametrize(
    ("target", "told"),
    [
        ("127.0.0.1/a", "'127.0.0.1' is not on the public Internet"),
        ("169.254.169.254/latest", "'169.254.169.254' is not on the public Internet"),
        ("inside.test/a", "'inside.test' is not on the public Internet"),
        ("both.test/a", "'both.test' is not on the public Internet"),
        ("metadata.test/a", "'metadata.test' is not on the public Internet"),
    ],
)
def test_names_and_redirects_that_lead_inside(server, internet, target, told):
    with pytest.raises(ValueError, match=told):
        open_public_image(f"https://{target}")
    assert internet == []
    with pytest.raises(ValueError, match=told):
        open_public_image(f"https://pictures.test/to/{target}")
    assert internet == [(PUBLIC, 443)]


@pytest.mark.parametrize("target", ["http://pictures.test/a", "file:///etc/passwd", "ftp://pictures.test/"])
def test_redirects_to_other_schemes(internet, monkeypatch, target):
    monkeypatch.setattr(Pictures, "do_GET", lambda self: self.send(302, b"", Location=target))
    with pytest.raises(ValueError, match="only https://"):
        open_public_image("https://pictures.test/a")
    assert len(internet) == 1


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("loop", "leads on more than 3 times"),
        ("status/404", "pictures.test answers 404"),
        ("large", "more than 10 MB"),
        ("endless", "more than 10 MB"),
        ("short", "did not send it"),
    ],
)
def test_what_a_server_may_do(internet, path, told):
    with pytest.raises(ValueError, match=told):
        open_public_image(f"https://pictures.test/{path}")


def test_a_certificate_for_another_name_is_refused(server, internet):
    with pytest.raises(ValueError, match=r"unknown.test did not send it \(SSLCertVerificationError\)"):
        open_public_image("https://unknown.test/a")
    assert server.asked == []


@pytest.mark.parametrize("part", ["head", "body"])
def test_a_slow_server_is_left_in_time(internet, monkeypatch, part):
    monkeypatch.setattr(public_images_lrsa, "MAX_SECONDS", 1.0)
    started = time.monotonic()
    with pytest.raises(ValueError, match="did not send it within 1 seconds"):
        open_public_image(f"https://pictures.test/slow/{part}")
    assert time.monotonic() - started < 3
