"""`mpc bench`: what encrypted inference costs beside the same model in the clear, measured in one session."""
