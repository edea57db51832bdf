"""A user's own command in place of our training: its study file, its plan, and one run of it."""
