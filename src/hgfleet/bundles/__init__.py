"""Clone bundles: deciding, publishing and checking what lets most clones pass the service by."""
