"""What the pages share: figures, gestures, session state, text."""

SERVED = "PUMA_DASH_PROJECT"
"""Environment variable with the demo or module:factory that the server was started on."""
