"""Mercurial extensions and the session workers that run them; the boundary to Mercurial's API."""
