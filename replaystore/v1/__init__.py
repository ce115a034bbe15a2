"""Generated protobuf classes of the contract in proto/replaystore/v1/. Made by proto/generate.sh; never edited."""
