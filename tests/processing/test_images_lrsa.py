import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from processing.images_lrsa import open_image


def as_bytes(picture: Image.Image, kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format=kind)
    return buffer.getvalue()


def test_pictures_in_any_form_are_the_same_pixels(image_text_processor, picture, tmp_path):
    path = tmp_path / "picture.png"
    picture.save(path)
    images = [None, picture, str(path), path, path.read_bytes(), None]
    batch = image_text_processor(text=["a"] * 6, images=images, return_tensors="pt")
    assert batch["image_attention_mask"].tolist() == [0, 1, 1, 1, 1, 0]
    pixels = batch["pixel_values"]
    assert pixels.shape == (6, 3, 8, 8) and pixels.dtype == torch.float32
    assert not pixels[0].any() and not pixels[5].any() and pixels[1].any()
    wanted = image_text_processor.image_processor(picture, return_tensors="pt")["pixel_values"][0]
    assert all(pixels[row].equal(wanted) for row in range(1, 5))


def test_no_picture_at_all_leaves_the_entries_out(image_text_processor, processor, picture):
    assert "pixel_values" not in image_text_processor(text=["a", "b"], images=[None, None])
    assert "pixel_values" not in image_text_processor(text=["a", "b"])
    assert "pixel_values" not in processor(text=["a"], images=[picture])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_pictures_of_any_mode(image_text_processor, mode):
    batch = image_text_processor(text="a", images=Image.new(mode, (12, 9)), return_tensors="pt")
    assert batch["pixel_values"].shape == (1, 3, 8, 8)


def test_a_picture_that_the_camera_turned_is_turned_back(tmp_path):
    lying = Image.new("RGB", (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    lying.save(path, exif=exif)
    # `datasets` and `load_image` turn it too, so the same picture gives the same pixels from everywhere.
    assert open_image(path).size == open_image(path.read_bytes()).size == (20, 40)


@pytest.mark.parametrize("shape", [(1, 1), (7, 100), (20_000, 20_000), (10_001, 8)])
def test_pictures_too_small_or_too_large(image_text_processor, blank_png, tmp_path, shape):
    data = blank_png(*shape)
    path = tmp_path / "shape.png"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"picture .*shape\.png can't be read: .*pixels"):
        image_text_processor(text=["a", "b"], images=[None, path])
    with pytest.raises(ValueError, match=r"picture <bytes> can't be read: .*pixels"):
        image_text_processor(text="a", images=data)


def test_smallest_picture(image_text_processor, blank_png):
    assert image_text_processor(text="a", images=blank_png(8, 8))["image_attention_mask"] == [1]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "ICO"])
def test_truncated_pictures(image_text_processor, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = as_bytes(noise, kind)
    for length in (0, 1, 10, 30, len(data) // 2):
        with pytest.raises(ValueError, match="picture <bytes> can't be read"):
            image_text_processor(text="a", images=data[:length])


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@given(
    kind=st.sampled_from(["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "ICO"]),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6),
)
def test_damaged_pictures_open_or_say_why_not(kind, changes):
    data = bytearray(as_bytes(Image.linear_gradient("L").resize((16, 16)), kind))
    for place, value in changes:
        at = int(place * len(data))
        data[at : at + len(value)] = value
    try:
        assert open_image(bytes(data)).mode == "RGB"
    except ValueError as error:
        assert str(error).startswith("picture <bytes> can't be read: ")


@pytest.mark.parametrize("image", ["missing.png", "no picture at all", 3, ["list"], {"path": None}])
def test_what_is_no_picture(image_text_processor, image):
    with pytest.raises(ValueError, match="picture .* can't be read"):
        image_text_processor(text=["a"], images=[image])


def test_a_list_of_one_picture_or_none(image_text_processor):
    picture = Image.linear_gradient("L")
    plain = image_text_processor(text=["a", "a"], images=[picture, None], return_tensors="pt")
    nested = image_text_processor(text=["a", "a"], images=[[picture], []], return_tensors="pt")
    assert all(nested[name].equal(plain[name]) for name in plain)
    with pytest.raises(ValueError, match="one picture, here are 2"):
        image_text_processor(text=["a"], images=[[picture, picture]])


# --- from the net


class _Server(BaseHTTPRequestHandler):
    data = b""

    def do_GET(self):
        self.send_response(200 if self.path == "/picture.png" else 404)
        self.end_headers()
        self.wfile.write(self.data if self.path == "/picture.png" else b"<h1>not here</h1>")

    def log_message(self, *args):
        pass


def test_pictures_from_urls(image_text_processor, picture):
    _Server.data = as_bytes(picture)
    server = HTTPServer(("127.0.0.1", 0), _Server)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        batch = image_text_processor(text=["a", "b"], images=[picture, f"{address}/picture.png"], return_tensors="pt")
        assert batch["pixel_values"][0].equal(batch["pixel_values"][1])
        with pytest.raises(ValueError, match="picture http://.*/gone.png can't be read"):
            image_text_processor(text="a", images=f"{address}/gone.png")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    with pytest.raises(ValueError, match="picture http://.*/picture.png can't be read"):
        image_text_processor(text="a", images=f"{address}/picture.png")  # nobody listens any more
