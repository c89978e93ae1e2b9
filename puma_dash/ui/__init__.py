"""What the pages share: figures, gestures, session state, text."""
