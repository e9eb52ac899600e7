"""Serves the `handler.py` of a model folder over HTTP as an Inference Endpoint does, where this package can't be
imported; `test_handler.py` runs it.

Arguments: the folder. Prints the port; `GET /loads` tells how often a model was loaded.
"""

import importlib.util
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from clean_process import hide_own_packages


def load(folder: str):
    spec = importlib.util.spec_from_file_location("handler", Path(folder) / "handler.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, folder)
    spec.loader.exec_module(module)
    return module.EndpointHandler(folder)


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            self.answer(200, handler(json.loads(body)))
        except Exception as error:  # what the endpoint's own server does
            self.answer(400, {"error": str(error)})

    def do_GET(self):
        self.answer(200, loads)

    def answer(self, status: int, content):
        body = json.dumps(content, allow_nan=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if __name__ == "__main__":
    hide_own_packages()
    import torch
    from transformers import AutoModel

    torch.set_num_threads(1)
    loads, load_model = [], AutoModel.from_pretrained
    AutoModel.from_pretrained = lambda *args, **kwargs: loads.append(1) or load_model(*args, **kwargs)
    handler = load(sys.argv[1])
    server = HTTPServer(("127.0.0.1", 0), Endpoint)
    print(server.server_port, flush=True)
    server.serve_forever()
