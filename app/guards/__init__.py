"""Guard models: the second look at a text, by whatever model an operator has.

A guard is a folder of SLUICE_MODELS with a model.toml of kind `guard` (its format and what its labels mean), and a place where it
runs: a server (SLUICE_GUARD_URL, app.guards.remote) or a path on this machine (SLUICE_GUARD_PATH, app.guards.local). How a family
of models is asked and how its answers read is app.guards.formats, and nothing else knows it.
"""
