"""For every test: processes that tests start can be interrupted, whatever started the tests."""

import signal

for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    # A shell starts background jobs with the first two ignored, nohup the third; every child inherits that.
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)
