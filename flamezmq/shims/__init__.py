"""The ways to run user code in an executor."""
