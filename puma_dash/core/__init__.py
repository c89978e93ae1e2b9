"""The method: no interface, no storage (see README, Layers)."""
