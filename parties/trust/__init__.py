"""Certificate authorities, identities, chains, signatures and revocation: they say who is who."""
