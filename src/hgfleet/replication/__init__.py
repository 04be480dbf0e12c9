"""What moves messages between the log and the copies: log agent, applier, coordinator."""
