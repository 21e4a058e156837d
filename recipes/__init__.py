"""Training recipes: `accelerate launch recipes/train.py --config recipes/tiny_rec.yaml ...`."""
