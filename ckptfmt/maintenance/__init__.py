"""What is done with checkpoints that stand: verify, repair, gc."""
