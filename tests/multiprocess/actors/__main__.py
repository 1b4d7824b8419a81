"""Run one function of these modules: ``python -m tests.multiprocess.actors module.function '{"argument": 1}'``."""

from __future__ import annotations

import faulthandler
import importlib
import json
import signal
import sys

if __name__ == "__main__":
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1)  # forked children inherit it
    faulthandler.dump_traceback_later(100, exit=True)  # whatever hangs says where
    module_name, _, function_name = sys.argv[1].partition(".")
    module = importlib.import_module(f"tests.multiprocess.actors.{module_name}")
    getattr(module, function_name)(**json.loads(sys.argv[2]))
