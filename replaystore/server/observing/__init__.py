"""How a server is seen from outside: what it counts, logs and traces, how it stands, and where that is asked for."""
