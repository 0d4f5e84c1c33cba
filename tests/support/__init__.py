"""What several tests share: plans, worlds, gate cases, statistics, an independent AES."""
