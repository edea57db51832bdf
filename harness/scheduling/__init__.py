"""Where runs are executed: `inline` and `local` behind the one interface of `base`."""
