"""The HTTP API of training and evaluation: what its pages do, for programs. Nothing here has a rule of its own."""
