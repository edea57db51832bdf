"""The parts of a report, in reading order: each function returns sections of text, tables and figures."""
