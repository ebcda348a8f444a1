"""Section 5 of the Reptile paper: Taylor series and comparison of
directions."""
