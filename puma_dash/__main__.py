"""``python -m puma_dash``: the command line."""

from puma_dash.cli import main

main()
