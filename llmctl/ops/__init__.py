"""One module per use case; they tell what they do through `core.events` and never print."""
