"""What an operator decides: one table of settings for the command line, the environment, replaystore.toml and docs/SETTINGS.md."""
