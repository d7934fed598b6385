"""Ratings of sources from votes on pairs: pure functions over arrays, and `battles`, which reads the arrays.

`bradley_terry` fits, `intervals` says how sure it is, `elo` rates in order of time, `style` and `gaming` look for what
wins votes without being better, `history` follows the ratings over time. annotation.leaderboard puts them together.
"""
