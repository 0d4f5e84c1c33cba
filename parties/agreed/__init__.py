"""Values that processes must agree on byte for byte."""
