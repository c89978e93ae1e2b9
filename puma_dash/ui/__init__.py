"""What the pages share: figures, gestures, session state, text."""

SERVED = "PUMA_DASH_PROJECT"
"""Environment variable with the demo or module:factory that the server was started on."""

PRESENT = "PUMA_DASH_PRESENT"
"""Environment variable that is there where the server was started with the guided tour."""
