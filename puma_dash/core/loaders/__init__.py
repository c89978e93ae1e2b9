"""Models and data out of files, which may come from anybody."""
