"""Static figures by matplotlib's object interface: no display, no global state, the same bytes every time."""
