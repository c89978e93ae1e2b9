"""Speed and fidelity, measured side by side in one run: ``make bench``. Prints tables, asserts nothing."""
