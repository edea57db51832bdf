"""For every test: processes that tests start can be interrupted, whatever started the tests, and the cache of
this package is a folder of the tests' own."""

import atexit
import os
import shutil
import signal
import tempfile

for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    # A shell starts background jobs with the first two ignored, nohup the third; every child inherits that.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)

if "HARNESS_CACHE" not in os.environ:  # workers of one session share that of the first process
    os.environ["HARNESS_CACHE"] = tempfile.mkdtemp(prefix="harness-cache-")
    atexit.register(shutil.rmtree, os.environ["HARNESS_CACHE"], ignore_errors=True)

# A plan measures the machine's speed for seconds: tests of that say so themselves.
os.environ["HARNESS_MEASURE"] = "0"
