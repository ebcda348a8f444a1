"""Section 5 of the Reptile paper: Taylor predictions, and how far the directions are apart."""
