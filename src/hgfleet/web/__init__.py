"""What a mirror answers over HTTP: wire protocol, pages, pushlog and health."""
