"""What `harness doctor` looks at: one file per part of a machine. A check says what it found and the mend."""
