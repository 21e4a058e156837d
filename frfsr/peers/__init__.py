"""The published networks that the paper compares with, one file a network."""
