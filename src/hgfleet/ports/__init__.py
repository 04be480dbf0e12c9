"""What services need from outside, as protocols."""
