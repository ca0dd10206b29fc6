"""What runs inside each engine's own process. Started by path, in the engine's environment: see :mod:`.worker`."""
