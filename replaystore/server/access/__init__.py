"""Who calls, what they may do, and how connections are encrypted. docs/SECURITY.md says it for operators."""
