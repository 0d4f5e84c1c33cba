"""Data at rest at a party: encrypted blocks, the keys that open them, and what is public about them."""
