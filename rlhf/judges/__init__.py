"""Models that judge in people's stead: what they are asked, how their answers are read, and whether people can be
spared (the card)."""
