"""llmctl's tests."""
