"""The contract in Python: messages, arrays in messages, errors, names of methods. NumPy and protobuf only; used by server and client."""
