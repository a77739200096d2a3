"""Datasets in, answers out: the batch job and what is read from its folder."""
