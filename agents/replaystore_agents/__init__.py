"""replaystore_agents: learners and actors that use replaystore as anybody would: through its public names only.

Every algorithm is one readable file to copy from; the command line is ``replaystore-agents act | train | offline | evaluate``.
"""
