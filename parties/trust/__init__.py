"""Who is who: certificate authorities, identities, chains, signatures and revocation."""
