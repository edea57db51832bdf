"""Results that were not trained here: lines of a file, checked and made into a plan and records."""
