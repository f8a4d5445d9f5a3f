"""Images unlike the films that a bundle knows: noise, animals, other parts of the body."""
