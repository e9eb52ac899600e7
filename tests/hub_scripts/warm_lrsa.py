"""Runs `lrsa` commands in one process that has imported everything once; `test_push.py` talks to it.

A line of standard input is `{"argv": [...], "token": ...}`, a line of standard output `{"code", "out", "err"}`.
"""

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout

from hub_scripts.cli import main


for line in sys.stdin:
    asked = json.loads(line)
    os.environ["HF_TOKEN"] = asked["token"] or ""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(asked["argv"])
        except SystemExit as exit:
            code = exit.code
    print(json.dumps({"code": code, "out": out.getvalue(), "err": err.getvalue()}), flush=True)
