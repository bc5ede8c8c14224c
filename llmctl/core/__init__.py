"""Pure core: what the user wants, what should run, and the plan between; no I/O of any kind."""
