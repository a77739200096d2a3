"""Skip-Vision (arXiv:2503.21817) as tensors and counts. Knows torch; knows no model, server or cluster."""
