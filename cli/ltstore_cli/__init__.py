"""The ltstore command: parses, calls the library, renders."""
