"""Training recipes: `accelerate launch --quiet recipes/train.py --config recipes/tiny_rec.yaml ...`."""
