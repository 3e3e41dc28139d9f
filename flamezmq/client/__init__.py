"""The client: a library in the user's process."""
