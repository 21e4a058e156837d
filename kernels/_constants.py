"""Numbers of the operations' definitions, which every form of an operation shares."""

# patch_argmax
EPSILON = 1e-5  # added to the norm of every patch, so that an empty patch scores 0 instead of NaN
EXPONENT_LIMIT = 100  # of the rescaling: keeps squares of the largest float32 finite and the factor a normal number

# deform_conv
TAPS = 9  # of its 3x3 kernel

# refine_flow
BLOCK = 16  # pixels, side of a block
SCALE = 4  # pixels of both images per unit of the flow
MARGIN = (BLOCK - SCALE) // 2  # of a block around the pixels of its position
FLAT = 1e-4  # the least deviation that a block is divided by, so that flat blocks correlate with nothing
PENALTY = 1e-4  # of correlation, per pixel of a step: among equal places the nearest wins
