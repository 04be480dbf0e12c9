"""Values and decisions: pure, standard library only, no I/O."""
