"""`frfsr data build`: training pairs from one's own photos of places. Needs OpenCV: the extra `build`."""
