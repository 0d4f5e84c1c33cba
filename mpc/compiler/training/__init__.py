"""From a model to the plan of one training step: derivatives, losses, optimisers, and what they become."""
