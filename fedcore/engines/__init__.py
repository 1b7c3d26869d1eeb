"""What carries messages between server and sites."""
