"""What the manual says of the code, made from the code whenever it is built: `make manual`."""
