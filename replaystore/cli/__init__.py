"""The command line. Knows the store, the server and the client by their public verbs; nothing below imports it."""
