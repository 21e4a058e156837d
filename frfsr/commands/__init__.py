"""The commands of `frfsr`, one file each: their arguments, checked without torch, and what they do."""
