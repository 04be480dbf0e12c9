"""Mercurial hosting on a replication log: the log is the repository and every host is a copy."""
