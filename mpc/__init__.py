"""mpc: the secure multi-party computation library; no sockets, no files, no clock."""

__version__ = "0.1.0"
