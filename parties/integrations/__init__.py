"""Let other frameworks use a cluster; each module imports its framework when it is used, and not before."""
