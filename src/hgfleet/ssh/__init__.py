"""The way in for pushes: the SSH front and the gate that parses what a client asks for."""
