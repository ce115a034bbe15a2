"""Whether a client, in whatever language, speaks the protocol: exercises that it is run through against a real server, each checked."""
