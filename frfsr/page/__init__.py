"""`frfsr page`: the engine in a browser."""
