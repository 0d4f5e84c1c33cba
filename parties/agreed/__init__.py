"""What processes must agree on byte for byte."""
