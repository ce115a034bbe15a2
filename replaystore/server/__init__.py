"""The gRPC server: a thin asynchronous layer over a store. Decides nothing about replay."""
