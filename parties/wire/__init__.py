"""How bytes travel: servers, channels, frames, and errors across a connection."""
