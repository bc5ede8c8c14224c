"""Edge to what runs services; `base.Engine` is the contract, every engine passes one test suite."""
