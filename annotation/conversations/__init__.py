"""The pages of conversations, and the live responses on them."""
