"""Pages: comparing and rewriting, settling and quality, accounts, members, settings, guidelines, journal, pace."""
