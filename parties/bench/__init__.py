"""`mpc bench`: what private inference costs beside the same model in the clear, measured in one session."""
