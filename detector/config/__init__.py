"""The configuration: its schema, how it is composed, and the command line."""
